package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/janitor"
	"fairlead.dev/bridge/kube/lease"
	"fairlead.dev/server"
)

// dueWithin is how long before its deletion an environment is told of.
const dueWithin = 24 * time.Hour

// others are the user's environments on those clusters that this machine has a record of. It has no goroutine of its own.
type others struct {
	f folders

	mu sync.Mutex
	at map[string]cluster // by api.Due.ID
}

// cluster is one that a record names.
type cluster struct{ kubeconfig, context string }

func (c cluster) options() kube.Options {
	return kube.Options{Kubeconfig: c.kubeconfig, Context: c.context, Version: version}
}

// Due lists those that are about to be put to sleep, or deleted within a day: one list a cluster.
func (o *others) Due(ctx context.Context) ([]api.Due, error) {
	clusters := map[cluster]bool{}
	for _, rec := range o.f.records().All() {
		if rec.Environment.Provider != "local" {
			clusters[cluster{rec.Kubeconfig, rec.Environment.Context}] = true
		}
	}
	at := map[string]cluster{}
	all := []api.Due{}
	var errs []error
	for c := range clusters {
		list, err := dueIn(ctx, c)
		if err != nil {
			errs = append(errs, err)
		}
		for _, d := range list {
			at[d.ID] = c
		}
		all = append(all, list...)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(errs) > 0 { // what was listed of a cluster that is away now can still be meant
		for id, c := range o.at {
			if _, ok := at[id]; !ok {
				at[id] = c
			}
		}
	}
	o.at = at
	return all, errors.Join(errs...)
}

func dueIn(ctx context.Context, c cluster) (out []api.Due, err error) {
	cl, err := kube.Connect(c.options())
	if err != nil {
		return nil, err
	}
	ds, _, err := cl.Environments(ctx, kube.Filter{Owner: server.Owner()})
	if err != nil {
		return nil, err
	}
	now, err := cl.Clock().Now()
	if err != nil {
		return nil, err
	}
	j := janitor.New(janitor.Options{Cluster: cl, DryRun: true})
	for i := range ds {
		f := j.Find(&ds[i], now)
		if f == nil || f.Going {
			continue
		}
		dec := f.Decision
		soon := dec.Action == lease.Warn || dec.Action == dec.Then && dec.Then != "" // by its time, or past it
		if !soon && (dec.Then != lease.Delete || dec.Due.Sub(now) > dueWithin) {
			continue
		}
		hash := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", ds[i].UID, dec.Then, dec.Due.UTC().Format(time.RFC3339)))
		env := f.Environment
		out = append(out, api.Due{ID: hex.EncodeToString(hash[:8]), Environment: env, Dir: f.Dir, UID: string(ds[i].UID), Then: string(dec.Then), At: dec.Due, Why: dec.Why})
	}
	return out, nil
}

// find finds the very environment that was listed.
func (o *others) find(ctx context.Context, d api.Due) (*kube.Environment, error) {
	o.mu.Lock()
	c, ok := o.at[d.ID]
	o.mu.Unlock()
	gone := &api.Problem{Code: api.CodeGone, Message: "the environment " + d.Name + " is another by now", Hint: "fairlead env list says what there is"}
	if !ok {
		return nil, gone
	}
	e, err := kube.Lookup(ctx, c.options(), d.Namespace, d.Name)
	if err != nil {
		return nil, err
	}
	if e.UID() != d.UID {
		return nil, gone
	}
	return e, nil
}

// Keep keeps one for a time, used or not.
func (o *others) Keep(ctx context.Context, d api.Due, span time.Duration) error {
	e, err := o.find(ctx, d)
	if err != nil {
		return err
	}
	_, err = e.KeepFor(ctx, span)
	return err
}

// Stop removes one, and this machine's record of it.
func (o *others) Stop(ctx context.Context, d api.Due) error {
	e, err := o.find(ctx, d)
	if err != nil {
		return err
	}
	if err := e.Delete(ctx); err != nil {
		return err
	}
	if rec, err := o.f.records().Load(d.Name); err == nil && rec.Environment.Name == d.Name && rec.Environment.Namespace == d.Namespace {
		return o.f.records().Remove(d.Name)
	}
	return nil
}
