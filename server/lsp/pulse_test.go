package lsp

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
)

var discard = slog.New(slog.DiscardHandler)

// silent is an agent that says nothing.
type silent struct{}

func (silent) Attach(context.Context, func(Update))                                  {}
func (silent) Stop(context.Context, string) error                                    { return nil }
func (silent) AnswerDue(context.Context, string, string) error                       { return nil }
func (silent) Cancel(context.Context, string, string) error                          { return nil }
func (silent) Saved(context.Context, ...string) error                                { return nil }
func (silent) Restart(context.Context) error                                         { return nil }
func (silent) KeepUntil(context.Context, string, time.Time) error                    { return nil }
func (silent) DebugChoice(context.Context, string, api.DebugChoice) error            { return nil }
func (silent) Form(context.Context, string, api.FormRequest) (string, error)         { return "", nil }
func (silent) SwitchDependency(context.Context, string, api.DependencyRequest) error { return nil }
func (silent) Join(context.Context, api.JoinRequest) (api.RunAnswer, error) {
	return api.RunAnswer{}, nil
}
func (silent) Run(context.Context, api.RunRequest) (api.RunAnswer, error) {
	return api.RunAnswer{}, nil
}
func (silent) Access(context.Context, string) (api.JournalAccess, error) {
	return api.JournalAccess{}, nil
}
func (silent) Journal(context.Context, string, uint64, bool, func(api.Entry) error) error { return nil }

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		p := newPulse(100*time.Millisecond, func() { at = append(at, time.Since(start)) })
		for range 25 { // for a quarter of a second
			p.poke()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		p.poke()
		p.poke()
		synctest.Wait()
		p.end()
		p.poke()
		synctest.Wait()
		want := []time.Duration{0, 100, 200, 300, 1250}
		if len(at) != len(want) {
			t.Fatalf("%v", at)
		}
		for i := range want {
			if at[i] != want[i]*time.Millisecond {
				t.Errorf("%v", at)
			}
		}
	})
}
