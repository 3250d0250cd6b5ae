package main

import (
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/payload"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
)

// choice is what the settings and the flags come to.
type choice struct {
	on, name, main string
	process        api.Process
	build          build.Config
	kube           kube.Options
	trees          map[string]string // name to path in the pod
	synced         []syncer.Folder
	rest           time.Duration
}

func (c choice) folders(native bool) []syncer.Folder {
	return c.synced
}

func loadSettings(dir string, o runOptions) (choice, error) {
	c := choice{on: o.place.on, main: o.main}
	if c.on == "" {
		c.on = "local"
	}
	c.process.Args = o.args
	c.kube = kube.Options{Kubeconfig: o.place.kubeconfig, Context: o.place.context, Namespace: o.place.namespace, Registry: o.place.registry, Payload: payload.Executable, Version: version}
	return c, nil
}
