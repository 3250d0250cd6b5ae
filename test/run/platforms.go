package main

import (
	"errors"
	"fmt"
	"strings"

	gopackages "golang.org/x/tools/go/packages"
)

// platforms checks the types of the agent and of its tests for every platform that it is for (vet has seen linux/amd64), from source: to compile what
// it depends on would take five minutes for each. What the linker would say is left to make vsix, which builds them all.
func (r *runner) platforms() error {
	var errs []error
	for _, p := range []string{"linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"} {
		goos, arch, _ := strings.Cut(p, "/")
		checked, err := gopackages.Load(&gopackages.Config{
			Mode:  gopackages.LoadAllSyntax,
			Tests: true,
			Env:   append(r.env, "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0"),
		}, "./cmd/fairlead", "./server/...", "./debugadapter/...", "./bridge", "./bridge/local", "./bridge/kube", "./syncer", "./syncer/build", "./syncer/watch", "./syncer/delta")
		if err != nil {
			return err
		}
		gopackages.Visit(checked, nil, func(pkg *gopackages.Package) {
			for _, err := range pkg.Errors {
				errs = append(errs, fmt.Errorf("%s: %w", p, err))
			}
		})
	}
	return errors.Join(errs...)
}
