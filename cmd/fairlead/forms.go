package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/endpoint"
	"fairlead.dev/platform/notify"
	"fairlead.dev/platform/portal"
	"fairlead.dev/platform/registry"
	"fairlead.dev/server"
)

// forms are the agent's registries, each with a portal on loopback. One is begun when a session first needs it. Their goroutines end
// with ctx; wait returns then.
type forms struct {
	ctx context.Context
	f   folders
	log *slog.Logger
	wg  sync.WaitGroup
	a   *server.Agent // whose they are; set before it runs

	mu sync.Mutex
	by map[string]*form // by the registry's address
}

// form is one registry with its portal; without one, where why says so.
type form struct {
	reg    *registry.Registry
	portal *portal.Portal
	why    error

	mu      sync.Mutex
	written map[string][]byte // files of the registry that are on this machine to be read, by their paths there
}

// expected is how long after a form was opened its outcome is looked for twice a second; a review takes longer, and is found by the
// usual poll.
const expected = 10 * time.Minute

func newForms(ctx context.Context, f folders, log *slog.Logger) *forms {
	return &forms{ctx: ctx, f: f, log: log, by: map[string]*form{}}
}

func (fs *forms) wait() { fs.wg.Wait() }

func (fs *forms) of(remote string) (*form, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if got := fs.by[remote]; got != nil {
		return got, nil
	}
	reg, err := registry.Open(fs.ctx, registry.Options{Dir: fs.f.registry(), Remote: remote})
	if err != nil {
		return nil, err
	}
	if with, err := reviewed(fs.ctx, fs.f, reg); err != nil {
		fs.log.Warn("no reviews are opened on the registry's forge", "err", err)
	} else {
		reg = with
	}
	fo := &form{reg: reg}
	if fo.portal, fo.why = fs.serve(reg); fo.why != nil {
		fs.log.Warn("no portal", "err", fo.why)
	}
	fs.by[remote] = fo
	return fo, nil
}

// serve begins a registry's portal.
func (fs *forms) serve(reg *registry.Registry) (*portal.Portal, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, &api.Problem{Code: "portal-listen", Message: "listen: " + err.Error(), Hint: "close what uses up this machine's ports"}
	}
	p, box, err := localPortal(fs.ctx, fs.f, reg, ln, nil, fs.a, fs.log)
	if err != nil {
		ln.Close()
		return nil, err
	}
	fs.wg.Go(func() { box.Run(fs.ctx) })
	fs.wg.Go(func() {
		if err := p.Serve(fs.ctx, ln, nil); err != nil {
			fs.log.Warn("the portal has ended", "err", err)
		}
	})
	return p, nil
}

// moment is how long a form waits for what can be called of a service.
const moment = 800 * time.Millisecond

// localPortal is a portal for the user of this machine, which ancestors may frame, and the outbox of its messages. Both are still to be run.
// a knows what runs here; nil: nothing is known of that.
func localPortal(ctx context.Context, f folders, reg *registry.Registry, ln net.Listener, ancestors []string, a *server.Agent, log *slog.Logger) (*portal.Portal, *notify.Box, error) {
	author, err := localUser(ctx)
	if err != nil {
		return nil, nil, err
	}
	box, err := notify.New(notify.Options{Dir: filepath.Join(f.state, "outbox"), Secret: notify.Folder(filepath.Join(f.state, "secrets")), Mail: notify.MailFromEnvironment(os.Getenv), Logger: log})
	if err != nil {
		return nil, nil, err
	}
	find := &endpoint.Finder{Limit: moment, Logger: log}
	var observed func(ctx context.Context, caller, callee, environment string) []api.Seen
	if a != nil {
		find.Where = func(service string) endpoint.Place {
			folder, address := a.Called(service)
			return endpoint.Place{Folder: folder, Address: address}
		}
		observed = func(ctx context.Context, caller, callee, environment string) []api.Seen {
			ctx, cancel := context.WithTimeout(ctx, moment)
			defer cancel()
			return a.Observed(ctx, caller, callee, environment)
		}
	}
	p, err := portal.New(portal.Options{URL: "http://" + ln.Addr().String(), Registry: reg, Local: &author, Frames: true, FrameAncestors: ancestors, Logger: log,
		Endpoints: find.Of, Observed: observed,
		Changed: func(_ context.Context, c portal.Change) error {
			return box.Tell(notify.Of(c.Request, c.Result, c.Link), notify.Targets(c.Teams...)...)
		}})
	return p, box, err
}

// calls is how one service's calls are judged: by a registry, which is begun by the first. folder finds a callee's source.
func (fs *forms) calls(mode api.CallMode, remote, service string, folder func(callee string) string) server.Calls {
	return server.Calls{Mode: mode, Folder: folder,
		Follow: func(ctx context.Context, tell func(server.Granted, error)) {
			fo, err := fs.of(remote)
			if err != nil {
				tell(nil, err)
				return
			}
			fo.reg.Watch(ctx, func(s *registry.Snapshot, err error) {
				if s == nil {
					tell(nil, err)
					return
				}
				tell(func(callee string) (bool, []string, api.Place) {
					governed, patterns := s.Grants(service, callee)
					if !governed {
						return false, nil, api.Place{}
					}
					return true, patterns, fs.policy(fo, s, callee)
				}, err)
			})
		},
		Link: func(callee, environment string) string {
			fo, err := fs.of(remote)
			if err != nil || fo.portal == nil {
				return ""
			}
			return fo.portal.URL() + requestPath(service, callee, environment, nil)
		},
		Form: func(r api.FormRequest, environment string) (string, error) {
			fo, err := fs.of(remote)
			if err == nil {
				err = fo.why
			}
			if err != nil {
				return "", err
			}
			fo.reg.Expect(expected) // the answer may come from elsewhere
			path := requestPath(service, r.Callee, environment, r.Methods)
			if r.Page == "service" {
				path = "/services/" + url.PathEscape(r.Callee)
			}
			return fo.portal.SignInURL(path), nil
		}}
}

// requestPath is the portal's form, filled in.
func requestPath(caller, callee, environment string, methods []string) string {
	q := url.Values{"caller": {caller}, "callee": {callee}, "environment": {environment}}
	if len(methods) > 0 {
		q["method"], q["only"] = methods, []string{"1"}
	}
	return "/request?" + q.Encode()
}

// about says who decides on a new caller of a service.
func about(s *registry.Snapshot, callee string) string {
	svc, ok := s.Services[callee]
	if !ok {
		return ""
	}
	owner := "its owners"
	if svc.Team != "" {
		owner = "team " + svc.Team
	}
	if cmp.Or(svc.Access, registry.AccessOpen) == registry.AccessReview {
		return "new callers of " + callee + " are reviewed by " + owner
	}
	return callee + " is open to whoever asks"
}

// policy is what the registry says of new callers of a service, and its file. A bare repository has none, so a copy is made that cannot
// be changed: an editor opens that, where it would do nothing with the address of a page.
func (fs *forms) policy(fo *form, s *registry.Snapshot, callee string) api.Place {
	at := api.Place{Message: about(s, callee)}
	name, text, line := s.Policy(callee)
	if name == "" || at.Message == "" {
		return at
	}
	sum := sha256.Sum256([]byte(fo.reg.Where()))
	path := filepath.Join(fs.f.cache, "registry", hex.EncodeToString(sum[:6]), filepath.FromSlash(name))
	fo.mu.Lock()
	defer fo.mu.Unlock()
	if _, err := os.Stat(path); err != nil || !bytes.Equal(fo.written[path], text) {
		if err := writeReadOnly(path, text); err != nil {
			fs.log.Warn("no copy of a registry's file to look at", "err", err)
			return at
		}
		if fo.written == nil {
			fo.written = map[string][]byte{}
		}
		fo.written[path] = text
	}
	at.File, at.Line = path, line
	return at
}

// writeReadOnly writes a file that is to be looked at only.
func writeReadOnly(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // it is not there any more, or of no use
	_, err = t.Write(text)
	if err := errors.Join(err, t.Chmod(0o400), t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}
