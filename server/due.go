package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"fairlead.dev/api"
)

// Others looks after those environments of the user that stay in a cluster without a session: yesterday's branch, another
// folder.
type Others interface {
	// Due lists what is about to be put to sleep or deleted because nobody uses it.
	Due(ctx context.Context) ([]api.Due, error)
	// Keep keeps one for a time, used or not; Stop removes one. Each acts on that very environment, or fails.
	Keep(ctx context.Context, d api.Due, span time.Duration) error
	Stop(ctx context.Context, d api.Due) error
}

const (
	// dueEvery is how often Others is asked. What is put to sleep is said to be due ten minutes before.
	dueEvery = 5 * time.Minute
	// dueFirst is how long after a front end came it is first looked: it may just be about to run what is due.
	dueFirst = 20 * time.Second
	// dueLimit bounds the question, dueActLimit what is done about the answer: a deletion is waited for.
	dueLimit    = 30 * time.Second
	dueActLimit = 3 * time.Minute
	// dueKeep is how long "keep" is.
	dueKeep = 24 * time.Hour
)

// dues is what of Others is due.
type dues struct {
	all  map[string]api.Due   // by ID, as they were listed last
	told map[string]time.Time // IDs that a front end was told of, with their times
	file string               // that outlives the agent; "" without
	look chan struct{}        // a front end is there: look now
	last time.Time            // when it was looked last
}

// watchDue looks now and then, while a front end is attached that could be told, until ctx ends.
func (a *Agent) watchDue(ctx context.Context) {
	t := time.NewTicker(dueEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-a.due.look:
			if pause(ctx, dueFirst) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
		a.mu.Lock()
		skip := len(a.attached) == 0 || time.Since(a.due.last) < dueEvery/2
		if !skip {
			a.due.last = time.Now()
		}
		a.mu.Unlock()
		if skip {
			continue
		}
		lctx, cancel := context.WithTimeout(ctx, dueLimit)
		list, err := a.cfg.Others.Due(lctx)
		cancel()
		if err != nil { // a cluster that is away is told where it is needed; what is known of the others counts
			a.cfg.Logger.Debug("look for environments that are due", "err", err)
		}
		a.tellDue(list, err == nil)
	}
}

// tellDue tells front ends of what is new in a list: those that only show it, and one of those that ask. What a session
// holds is used. complete: what is not in the list is due no more.
func (a *Agent) tellDue(list []api.Due, complete bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if complete || a.due.all == nil {
		a.due.all = map[string]api.Due{}
	}
	news := false
	for _, d := range list {
		if a.sessions[d.Name] != nil {
			continue
		}
		a.due.all[d.ID] = d
		if _, ok := a.due.told[d.ID]; ok || len(a.attached) == 0 {
			continue
		}
		a.due.told[d.ID] = d.At
		news = true
		a.cfg.Logger.Info("an environment is due", "name", d.Name, "namespace", d.Namespace, "then", d.Then, "at", d.At)
		asked := false
		for at := range a.attached {
			if at.asks && asked {
				continue
			}
			asked = asked || at.asks
			a.send(at, api.Update{Due: &d})
		}
	}
	for id, at := range a.due.told {
		if _, ok := a.due.all[id]; !ok && time.Since(at) > 24*time.Hour {
			delete(a.due.told, id)
			news = true
		}
	}
	if news && a.due.file != "" {
		b, err := json.Marshal(a.due.told)
		if err == nil {
			tmp := fmt.Sprintf("%s.%d", a.due.file, os.Getpid())
			if err = os.WriteFile(tmp, b, 0o600); err == nil {
				err = os.Rename(tmp, a.due.file)
			}
		}
		if err != nil { // then it is told once more by the next agent
			a.cfg.Logger.Warn("what was told of environments that are due is not remembered", "err", err)
		}
	}
}

// loadDue reads what former agents told.
func (a *Agent) loadDue() {
	a.due.told = map[string]time.Time{}
	if a.due.file == "" {
		return
	}
	b, err := os.ReadFile(a.due.file)
	if err == nil {
		err = json.Unmarshal(b, &a.due.told)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.cfg.Logger.Warn("what was told of environments that are due is not known", "err", err)
	}
	if a.due.told == nil {
		a.due.told = map[string]time.Time{}
	}
}

// answerDue does what a user answered. Only what was listed can be meant.
func (a *Agent) answerDue(ctx context.Context, id, do string) error {
	a.mu.Lock()
	d, ok := a.due.all[id]
	a.mu.Unlock()
	if !ok {
		return &api.Problem{Code: CodeNoService, Message: "that environment is not due any more: it is used again, or gone", Hint: "fairlead env list says how it is"}
	}
	ctx, cancel := context.WithTimeout(ctx, dueActLimit)
	defer cancel()
	switch do {
	case api.DueKeep:
		return a.cfg.Others.Keep(ctx, d, dueKeep)
	case api.DueStop:
		return a.cfg.Others.Stop(ctx, d)
	}
	return badRequest(`do must be "keep" or "stop"`)
}
