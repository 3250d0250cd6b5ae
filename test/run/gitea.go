package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"fairlead.dev/test/gitea"
)

// gitea builds the forge of the tests, or finds it built: it is kept outside of the checkout, by a digest of what it is made from.
func (r *runner) gitea() error {
	if r.has(gitea.Variable) {
		fmt.Println("using the Gitea that " + gitea.Variable + " names")
		return nil
	}
	why := ""
	if runtime.GOOS != "linux" {
		why = "it needs Linux"
	} else if err := retry(func() error {
		dir, err := gitea.Build(context.Background())
		if err != nil {
			return err
		}
		now := time.Now()
		_ = os.Chtimes(dir, now, now) // only removeUnused reads it
		removeUnused(filepath.Dir(dir))
		r.env = append(r.env, gitea.Variable+"="+dir)
		return nil
	}); err != nil {
		why = err.Error()
	}
	if why == "" {
		return nil
	}
	if r.ci {
		return errors.New("no Gitea: " + why)
	}
	fmt.Printf("no Gitea: %s. The tests that need it are skipped.\n", why)
	return nil
}
