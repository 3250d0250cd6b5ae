package portal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/endpoint"
	"fairlead.dev/platform/registry"
)

// Registry is what the portal needs of the registry; *registry.Registry is one.
type Registry interface {
	// Snapshot may return the last one that is known beside the problem.
	Snapshot(context.Context) (*registry.Snapshot, error)
	Submit(context.Context, registry.Request) (registry.Result, error)
	Watch(context.Context, func(*registry.Snapshot, error))
}

// Change is a submission and what became of it.
type Change struct {
	Request registry.Request
	Result  registry.Result
	Teams   []registry.Team // the callee's and the caller's, as far as they are known
	Link    string          // of the portal's page about it
}

// Options are what a portal is made of.
type Options struct {
	// URL is how browsers reach it: scheme, host and port. Requests with another Host are refused. https makes cookies Secure, also
	// behind a proxy that ends TLS.
	URL      string
	Registry Registry

	// One of the two says who signs in.
	Local *registry.Author // the one user of this machine, by a one-time code
	OIDC  *OIDC

	// Token lets the agent in at the JSON side, as the local user; empty: nobody.
	Token string
	// ReadToken lets read at the JSON side; empty: nobody.
	ReadToken string

	// Observed says what a service was seen to call of another, in an environment where one is named; may be nil.
	Observed func(ctx context.Context, caller, callee, environment string) []api.Seen
	// Endpoints says what can be called of a service; nil: what its file says.
	Endpoints func(context.Context, registry.Service) []endpoint.Endpoint
	// Changed is told every submission that changed something, before its author is answered. It may be told one twice. May be nil.
	Changed func(context.Context, Change) error

	// FrameAncestors are origins whose pages may frame the portal besides an editor's own; see Frames.
	FrameAncestors []string
	// Frames lets VS Code show the portal inside of its window. No web page can have these origins.
	Frames bool

	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Portal is the form and what is around it. Its goroutines are Run's.
type Portal struct {
	o        Options
	url      *url.URL
	hosts    map[string]bool
	now      func() time.Time
	log      *slog.Logger
	sessions sessions
	codes    codes
	logins   logins
	provider *provider
	handler  http.Handler
	streams  chan struct{}
	beat     time.Duration // how often a stream that has nothing to say shows that it is there

	mu      sync.Mutex
	latest  *registry.Snapshot // as Run was told
	stale   error              // why there is no newer one
	results map[string]outcome // by request ID
	order   []string           // of results, the oldest first
	changed chan struct{}      // closed when the registry has changed
}

// New makes a portal. It does not listen; see Handler, Run and Serve.
func New(o Options) (*Portal, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, &api.Problem{Code: "bad-portal-url", Message: fmt.Sprintf("%q is no address of a portal", o.URL), Hint: "give scheme, host and port, as https://portal.example.com"}
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, &api.Problem{Code: "bad-portal-url", Message: "a portal that others reach needs https: " + o.URL,
			Hint: "give certificate and key, or put it behind a proxy that ends TLS and give the proxy's https address"}
	}
	if (o.Local == nil) == (o.OIDC == nil) {
		return nil, errors.New("a portal has either one local user or an OIDC provider")
	}
	if o.Local != nil && !loopback(u.Hostname()) {
		return nil, &api.Problem{Code: "bad-portal-url", Message: "only a portal on this machine may have a local user", Hint: "set up OIDC; docs/portal.md says how"}
	}
	for _, a := range o.FrameAncestors {
		// It goes into a header, whose words mean something.
		if u, err := url.Parse(a); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || a != u.Scheme+"://"+u.Host || strings.ContainsAny(a, " ;,*'\"") {
			return nil, &api.Problem{Code: "bad-origin", Message: fmt.Sprintf("%q is no origin whose pages may frame the portal", a), Hint: "write scheme, host and port, as https://code.example.com"}
		}
	}
	if o.Registry == nil {
		return nil, errors.New("a portal needs a registry")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	u.Path = ""
	p := &Portal{o: o, url: u, now: o.Now, log: o.Logger, results: map[string]outcome{}, changed: make(chan struct{}), streams: make(chan struct{}, maxStreams), beat: 15 * time.Second}
	p.hosts = hostsOf(u)
	if o.OIDC != nil {
		if p.provider, err = newProvider(*o.OIDC, p.url.String()); err != nil {
			return nil, err
		}
	}
	p.handler = p.guard(p.routes())
	return p, nil
}

// Handler answers for the portal. Run must run beside it.
func (p *Portal) Handler() http.Handler { return p.handler }

// URL is where the portal is.
func (p *Portal) URL() string { return p.url.String() }

// Run follows the registry until the context ends.
func (p *Portal) Run(ctx context.Context) {
	p.o.Registry.Watch(ctx, func(s *registry.Snapshot, err error) {
		if err != nil {
			p.log.Warn("portal: the registry is away", "error", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.latest, p.stale = s, err
		close(p.changed)
		p.changed = make(chan struct{})
	})
}

// snapshot is what is shown: as Run was told, or else as the registry says. There may be one beside the problem.
func (p *Portal) snapshot(ctx context.Context) (*registry.Snapshot, error) {
	p.mu.Lock()
	s, err := p.latest, p.stale
	p.mu.Unlock()
	if s != nil {
		return s, err
	}
	return p.o.Registry.Snapshot(ctx)
}

func (p *Portal) whenChanged() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

const (
	maxHeader   = 64 << 10
	maxBody     = 256 << 10
	maxInFlight = 256
	maxStreams  = 2000
)

// Serve listens and runs until the context ends; conf is nil without TLS.
func (p *Portal) Serve(ctx context.Context, ln net.Listener, conf *tls.Config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &http.Server{
		Handler:           p.handler,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig:         conf,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute, // an answer's own limit is set in guard: a stream has none
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		if s.Shutdown(end) != nil {
			s.Close()
		}
	})
	var err error
	if conf != nil {
		err = s.ServeTLS(ln, "", "")
	} else {
		err = s.Serve(ln)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		cancel(err)
	}
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (p *Portal) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{file}", static)
	mux.HandleFunc("GET /{$}", p.signedIn(p.services))
	mux.HandleFunc("GET /services/{name}", p.signedIn(p.service))
	mux.HandleFunc("GET /request", p.signedIn(p.form))
	mux.HandleFunc("POST /request", p.submit)
	mux.HandleFunc("GET /requests/{id}", p.signedIn(p.result))
	mux.HandleFunc("GET /sign-in", p.signIn)
	mux.HandleFunc("POST /sign-out", p.signOut)
	if p.o.Local != nil {
		mux.HandleFunc("POST /sign-in", p.exchange)
		mux.HandleFunc("GET /sign-in/to/{to}", p.signIn)
	} else {
		mux.HandleFunc("GET /sign-in/start", p.startLogin)
		mux.HandleFunc("GET /sign-in/callback", p.finishLogin)
	}
	mux.HandleFunc("GET /v1/services", p.bearer(read, p.apiServices))
	mux.HandleFunc("GET /v1/grants", p.bearer(read, p.apiGrants))
	mux.HandleFunc("POST /v1/requests", p.bearer(write, p.apiSubmit))
	mux.HandleFunc("GET /v1/requests/{id}", p.bearer(read, p.apiResult))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.refuse(w, r, http.StatusNotFound, &api.Problem{Code: "no-such-page", Message: "there is no such page", Hint: "begin at " + p.url.String() + "/"})
	})
	return mux
}
