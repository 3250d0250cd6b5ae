package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/lease"
	"fairlead.dev/bridge/payload"
	"fairlead.dev/server/settings"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
	"fairlead.dev/syncer/watch"
)

// choice is what the settings' sources and the flags come to, in the engines' own terms.
type choice struct {
	service        string   // the entry of services: that was taken
	services       []string // all of them
	files          []string // where settings come from or could
	on, name, main string
	process        api.Process
	build          build.Config
	kube           kube.Options
	dependencies   map[string]api.DependencyWish
	needs          map[string]settings.Dependency // the same, as they are written; on this machine with what the registry lists
	declared       map[string]settings.Dependency // those of them that fairlead.yaml names
	registered     map[string]api.DependencyMode  // what the registry lists under calls: of the service
	notes          []string                       // of what could not be read or is not found here, for a person
	base           string                         // the folder of fairlead.yaml, or the one that was asked for
	trees          map[string]string              // name to path in the pod
	synced         []syncer.Folder
	ignored        func(rel string, dir bool) bool // below root
	root           string
	rest           time.Duration
	calls          api.CallMode
	registry       string // its URL or path; empty means the one on this machine
}

// loadSettings reads the settings of a folder, for one of the file's services or ("") the one that the folder means.
// Everything that is wrong is in the error, one problem each.
func loadSettings(dir, service string, o runOptions) (choice, error) {
	var flags []settings.Flag
	flag := func(name, key, value string) {
		if value != "" {
			flags = append(flags, settings.Flag{Name: name, Key: key, Values: []string{value}})
		}
	}
	flag("--on", "on", o.place.on)
	flag("--kubeconfig", "kubernetes.kubeconfig", o.place.kubeconfig)
	flag("--context", "kubernetes.context", o.place.context)
	flag("--namespace", "kubernetes.namespace", o.place.namespace)
	flag("--registry", "kubernetes.registry", o.place.registry)
	flag("--main", "main", o.main)
	for mode, names := range map[string][]string{"fresh": o.fresh, "shared": o.shared} {
		f := settings.Flag{Name: "--" + mode, Key: "dependencies"}
		for _, n := range names {
			if mode == "fresh" && slices.Contains(o.shared, n) {
				return choice{}, &usageError{fmt.Errorf("%s is both --fresh and --shared", n)}
			}
			f.Values = append(f.Values, n+"="+mode)
		}
		if len(names) > 0 {
			flags = append(flags, f)
		}
	}
	l, problems := settings.Load(settings.Options{Dir: dir, Service: service, Flags: flags})
	var wrong []error
	for _, p := range problems {
		if p.Severity == "" || p.Severity == api.SeverityError {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) > 0 {
		err := errors.Join(wrong...)
		if len(problems) == 1 && problems[0].File == "" && strings.HasPrefix(problems[0].Message, "--") { // a flag's value
			err = &usageError{err}
		}
		return choice{}, err
	}
	c := choice{service: l.Service, services: l.Services, files: []string{filepath.Join(l.Root, settings.FileName)}, on: l.On, name: l.Name, main: l.Main, root: l.Root, ignored: watch.Matcher(l.Watch.Ignore), rest: l.Watch.Rest, calls: api.CallMode(l.Calls.Mode), registry: l.Registry}
	c.process = api.Process{Args: l.Args, Env: append(pairs(l.Env), o.serviceEnv...), Dir: l.Dir, Port: l.Port, Hosts: l.Hosts, Grace: l.Grace}
	if l.File != "" && l.File != c.files[0] {
		c.files = append(c.files, l.File)
	}
	if l.User != "" {
		c.files = append(c.files, l.User)
	}
	if o.args != nil {
		c.process.Args = o.args
	}
	c.build = build.Config{Target: api.Target{OS: "linux", Arch: runtime.GOARCH}, Native: c.on == "local", Environ: o.env, Flags: l.Build.Flags, Tags: l.Build.Tags, Env: pairs(l.Build.Env)}
	k := l.Kubernetes
	c.kube = kube.Options{Kubeconfig: k.Kubeconfig, Context: k.Context, Namespace: k.Namespace,
		Isolation: kube.Isolation(k.Isolation), Quota: k.Quota, Egress: k.Egress, Domain: k.Domain, Registry: k.Registry, Image: k.Image,
		Template: k.Template, Env: o.env, Lease: leasePolicy(l.Lease), Payload: payload.Executable, CABundle: caBundle(), Version: version}
	c.needs, c.declared, c.base = l.Dependencies, l.Dependencies, dir
	if l.File != "" {
		c.base = filepath.Dir(l.File)
	}
	for name, d := range l.Dependencies {
		if c.dependencies == nil {
			c.dependencies = map[string]api.DependencyWish{}
		}
		w := api.DependencyWish{Mode: api.DependencyMode(d.Mode)}
		if w.Mode == api.DependencyFresh {
			if w.Seed = d.Seed; filepath.IsAbs(d.Seed) && c.on != "local" {
				return choice{}, &api.Problem{Code: "settings-value", File: l.File, Line: 1, Message: fmt.Sprintf("dependencies.%s.seed: %s is a file, which fills a dependency on this machine", name, filepath.Base(d.Seed)),
					Hint: "in a cluster, write the name of a Job or CronJob that fills it"}
			}
		}
		c.dependencies[name] = w
	}
	if c.on != "local" {
		if err := c.expandInCluster(); err != nil {
			return choice{}, err
		}
	}
	c.trees = map[string]string{}
	for i, s := range l.Sync {
		name := fmt.Sprintf("sync-%d", i+1)
		c.trees[name] = s.To
		c.synced = append(c.synced, syncer.Folder{Name: name, Path: s.From, Ignored: watch.Matcher(s.Ignore)})
	}
	return c, nil
}

// leasePolicy is what the settings say of unused environments. They have been checked.
func leasePolicy(l settings.Lease) *lease.Policy {
	p := lease.DefaultPolicy
	if d, err := settings.Duration(l.Sleep); err == nil {
		p.Sleep = d
	}
	if d, err := settings.Duration(l.Delete); err == nil {
		p.Delete = d
	}
	return &p
}

func pairs(m map[string]string) []string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// caBundle is this machine's list of certificate authorities: an environment that has no image of its own gets it, so
// that the service can call what this machine can.
func caBundle() []byte {
	if runtime.GOOS != "linux" {
		return nil
	}
	// The places that Go's crypto/x509 looks at on Linux (root_linux.go), the common ones.
	for _, p := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if b, err := os.ReadFile(p); err == nil {
			return b
		}
	}
	return nil
}

// watchIgnored makes the watcher's patterns ones of absolute paths.
func (c choice) watchIgnored(path string) bool {
	rel, err := filepath.Rel(c.root, path)
	return err == nil && filepath.IsLocal(rel) && c.ignored(filepath.ToSlash(rel), false)
}
