package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fairlead.dev/api"
	agent "fairlead.dev/server/client"
	"fairlead.dev/test/bench/measure"
)

// stepPath measures steps without the adapter over the very connection that the adapter has: a client of the agent's claims
// the debugger and speaks with Delve in the environment. What is between this and Delve beside it is the network's; what is
// between this and a step through Fairlead is the adapter's. Both take turns, each in a fresh process of the same code.
func stepPath(socket string, s source, provider string, rounds int) (path, through measure.Spread, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	info, err := agent.New(agent.Options{Socket: socket, Name: "bench"}).Agent(ctx)
	if err != nil {
		return path, through, err
	}
	a := agent.New(agent.Options{Socket: socket, Name: "bench", Version: info.Version})
	all, err := a.Services(ctx)
	if err != nil {
		return path, through, err
	}
	if len(all) != 1 {
		return path, through, fmt.Errorf("%d services run", len(all))
	}
	name := all[0].Name
	go a.Attach(ctx, func(agent.Update) {}) // the environment is held meanwhile; ends with ctx
	if _, err := a.Run(ctx, api.RunRequest{Dir: s.Main(), On: provider, Env: os.Environ()}); err != nil {
		return path, through, err
	}
	defer a.Stop(ctx, name)
	var bare, adapted []float64
	for range rounds {
		if bare, err = stepBare(ctx, a, name, s, bare); err != nil {
			return path, through, err
		}
		c, err := startFairlead()
		if err != nil {
			return path, through, err
		}
		err = func() error {
			defer c.quit()
			if err := c.begin("attach", map[string]any{"service": name, "on": provider}, s); err != nil {
				return err
			}
			if err := c.call("restart", nil, nil); err != nil {
				return err
			}
			thread, err := c.stopped()
			if err == nil {
				adapted, err = c.step(thread, 6, adapted)
			}
			return err
		}()
		if err != nil {
			return path, through, err
		}
	}
	return measure.Of(bare), measure.Of(adapted), nil
}

// stepBare measures the steps of one fresh process, without the adapter.
func stepBare(ctx context.Context, a *agent.Client, name string, s source, figures []float64) ([]float64, error) {
	d, err := a.Debug(ctx, name, api.OnSaveNow)
	if err != nil {
		return figures, err
	}
	defer d.Close()
	first := true
	for {
		e, err := d.Next()
		switch {
		case err != nil:
			return figures, err
		case e.Gone != "":
			return figures, errors.New(e.Gone)
		case e.Process == 0:
		case first: // the one that runs: it is past the beginning of main
			first = false
			if err := d.Do(api.DebugCommand{Restart: true}); err != nil {
				return figures, err
			}
		default:
			conn, _, err := a.DialDebug(ctx, name, e.Process)
			if err != nil {
				return figures, err
			}
			defer conn.Close()
			c := newClient(nil, conn, conn)
			if err := c.begin("attach", map[string]any{"mode": "remote"}, s); err != nil {
				return figures, err
			}
			thread, err := c.stopped()
			if err != nil {
				return figures, err
			}
			return c.step(thread, 6, figures)
		}
	}
}

// quit lets go of the debugger, and of nothing else.
func (c *client) quit() {
	c.call("disconnect", map[string]any{"terminateDebuggee": false}, nil)
	c.close()
}

func agentSocket(dir string) string { return filepath.Join(dir, "agent.sock") }
