package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"fairlead.dev/api"
)

// Options say which agent is meant, and who asks.
type Options struct {
	// Socket is the agent's unix socket.
	Socket string
	// Version is the front end's own. An agent of another version is refused with a Problem of CodeVersion, except that
	// Attach and Run first ask one that holds nothing to leave, and go on with the one that Start starts.
	Version string
	// Name is who asks, for people: "fairlead run", "VS Code 1.139".
	Name string
	// Asks: this front end can ask its user, and not only show. Of several one is told what is to be asked.
	Asks bool
	// Start starts the agent and returns when it answers; nil: one that does not run is an error (CodeNoAgent). Its
	// error is what the user is shown: it says why the agent did not start. It is called by Attach and Run only, by one
	// goroutine at a time.
	Start  func(ctx context.Context) error
	Logger *slog.Logger // nil: nothing is logged
}

// The codes of this package's own problems.
const (
	CodeNoAgent = "no-agent"      // there is no agent, and none is to be started
	CodeVersion = "agent-version" // the agent that runs is of another version
)

// Update is what Attach tells.
type Update struct {
	// Update is the agent's message: Agent first, a Service for each that there is, Synced, and then what changes. After
	// a loss it all begins anew; a service that is not told again before Synced is gone.
	api.Update
	// Lost is set, and nothing else, when the agent has been lost and when it could not be reached again. It says why.
	Lost error
}

// Client talks to the agent. Its methods may be called at the same time.
type Client struct {
	opts Options
	id   string
	http *http.Client

	starting chan struct{} // a lock that a context can end the wait for

	mu      sync.Mutex
	checked bool // the agent that answers now has our version
	was     bool // it was attached at some time
}

// New makes a Client; nothing is dialled yet.
func New(o Options) *Client {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var id [16]byte
	rand.Read(id[:])
	c := &Client{opts: o, id: hex.EncodeToString(id[:]), starting: make(chan struct{}, 1)}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives:  true, // a unix socket costs nothing, and a stale one would fail a request after a restart
		DisableCompression: true,
	}}
	return c
}

// ID is the attachment's: what RunRequest.Client is set to.
func (c *Client) ID() string { return c.id }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.opts.Socket)
}

// Attach attaches to the agent and stays attached until ctx ends: what this client holds (Run) stays for that long, and
// a minute beyond where the end was not on purpose. handle is called from one goroutine, in order. The end of ctx
// releases all that is held and returns ctx's error.
//
// It returns another error when the agent cannot be reached or started at the first attempt, and when the agent that
// runs is of another version. A loss later is told to handle and mended, by starting the agent again: what this client
// held is to be asked for again by Run, once Synced has come.
func (c *Client) Attach(ctx context.Context, handle func(Update)) error {
	was := false
	wait := reattachFirst
	for {
		err := c.attachOnce(ctx, func(u api.Update) {
			if !was {
				c.mu.Lock()
				c.was = true
				c.mu.Unlock()
			}
			was, wait = true, reattachFirst
			handle(Update{Update: u})
		})
		c.forget()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var p *api.Problem
		if !was || errors.As(err, &p) && p.Code == CodeVersion {
			return err
		}
		handle(Update{Lost: err})
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, reattachMax)
	}
}

// The waits between attempts to attach again.
const (
	reattachFirst = 100 * time.Millisecond
	reattachMax   = 10 * time.Second
)

// leaveLimit bounds how long the end of Attach waits for the agent to have understood that it was on purpose.
const leaveLimit = 2 * time.Second

// pingLimit is how long an agent may be silent: it sends a ping every ten seconds.
const pingLimit = 35 * time.Second

func (c *Client) attachOnce(ctx context.Context, handle func(api.Update)) error {
	c.mu.Lock()
	replace := !c.was
	c.mu.Unlock()
	if err := c.ensure(ctx, replace); err != nil {
		return err
	}
	q := url.Values{"client": {c.id}, "name": {c.opts.Name}}
	if c.opts.Asks {
		q.Set("asks", "1")
	}
	conn, err := c.websocket(ctx, "/v1/attach", q, 16<<20)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(pingLimit))
	conn.SetPingHandler(func(data string) error {
		conn.SetReadDeadline(time.Now().Add(pingLimit))
		err := conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		if errors.Is(err, websocket.ErrCloseSent) {
			return nil
		}
		return err
	})
	left := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(left)
		// The agent answers the close message, which ends the reading below.
		conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
		conn.SetReadDeadline(time.Now().Add(leaveLimit))
	})
	defer func() {
		if !stop() {
			<-left
		}
	}()
	for {
		_, b, err := conn.ReadMessage()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var ce *websocket.CloseError
			if errors.As(err, &ce) && ce.Text != "" {
				return fmt.Errorf("the agent has ended: %s", ce.Text)
			}
			return errors.New("the agent has ended")
		}
		var u api.Update
		if err := json.Unmarshal(b, &u); err != nil {
			return fmt.Errorf("understand the agent: %w", err)
		}
		if ctx.Err() == nil {
			handle(u)
		}
	}
}

// Run asks for a service's environment; Client is filled in. The settings, the main package and the name have been
// checked when it returns, and it is the events that tell the rest. Problems are the error, several of them joined.
func (c *Client) Run(ctx context.Context, r api.RunRequest) (api.RunAnswer, error) {
	r.Client = c.id
	var a api.RunAnswer
	for again := false; ; again = true {
		if err := c.ensure(ctx, true); err != nil {
			return a, err
		}
		err := c.call(ctx, http.MethodPost, "/v1/run", r, &a)
		var p *api.Problem
		if again || !errors.As(err, &p) || p.Code != CodeNoAgent { // else it left just now
			return a, err
		}
	}
}

// Join asks to follow an environment that somebody else made; Client is filled in. It has been found when this returns.
func (c *Client) Join(ctx context.Context, r api.JoinRequest) (api.RunAnswer, error) {
	r.Client = c.id
	var a api.RunAnswer
	for again := false; ; again = true {
		if err := c.ensure(ctx, true); err != nil {
			return a, err
		}
		err := c.call(ctx, http.MethodPost, "/v1/join", r, &a)
		var p *api.Problem
		if again || !errors.As(err, &p) || p.Code != CodeNoAgent { // else it left just now
			return a, err
		}
	}
}

// SwitchDependency gives an environment a copy of a dependency, or staging's again. It returns when that is so; an error
// says why the environment is as it was.
func (c *Client) SwitchDependency(ctx context.Context, name string, r api.DependencyRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/dependencies", r, nil)
}

// Calls lists what a service has been seen to call.
func (c *Client) Calls(ctx context.Context, name string) ([]api.Seen, error) {
	var a struct {
		Calls []api.Seen `json:"calls"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/services/"+url.PathEscape(name)+"/calls", nil, &a)
	return a.Calls, err
}

// Reviewed tells that there is a review of the change that a service has under edit.
func (c *Client) Reviewed(ctx context.Context, name string, r api.ReviewRef) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/review", r, nil)
}

// Form is the page on which access is asked for. Its address signs in, once, and is for the user's own browser only.
func (c *Client) Form(ctx context.Context, name string, r api.FormRequest) (string, error) {
	var a api.FormAnswer
	err := c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/form", r, &a)
	return a.URL, err
}

// Agent says who the agent is; it never starts one, and does not look at its version.
func (c *Client) Agent(ctx context.Context) (api.Agent, error) {
	var a api.Agent
	err := c.call(ctx, http.MethodGet, "/v1/agent", nil, &a)
	return a, err
}

// Services lists what the agent holds.
func (c *Client) Services(ctx context.Context) ([]api.Service, error) {
	var a struct {
		Services []api.Service `json:"services"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/services", nil, &a)
	return a.Services, err
}

// Stop ends a session and removes its environment, whoever holds it. It returns when that has begun: the service in
// PhaseEnded tells its end.
func (c *Client) Stop(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/stop?by="+url.QueryEscape(c.opts.Name), nil, nil)
}

// StopAndWait is Stop that returns when the environment is gone; its error says why it is not.
func (c *Client) StopAndWait(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/stop?wait&by="+url.QueryEscape(c.opts.Name), nil, nil)
}

// Leave lets go of a session: the last one's leaving ends it.
func (c *Client) Leave(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/leave?client="+c.id, nil, nil)
}

// KeepUntil makes a session live without a front end until a time; the zero time ends that.
func (c *Client) KeepUntil(ctx context.Context, name string, until time.Time) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/keep", api.KeepRequest{Until: until}, nil)
}

// AnswerDue does api.DueKeep or api.DueStop to an environment that the agent told to be due, and returns when it is done.
func (c *Client) AnswerDue(ctx context.Context, id, do string) error {
	return c.call(ctx, http.MethodPost, "/v1/due/"+url.PathEscape(id), api.DueRequest{Do: do}, nil)
}

// Cancel breaks off "environment", "build" or "transfer"; see api.CancelRequest.
func (c *Client) Cancel(ctx context.Context, name, what string) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/cancel", api.CancelRequest{What: what}, nil)
}

// Saved tells of files that an editor has just written, by absolute paths.
func (c *Client) Saved(ctx context.Context, paths ...string) error {
	return c.call(ctx, http.MethodPost, "/v1/saved", api.SavedRequest{Paths: paths}, nil)
}

// Access returns where a browser or an editor's extension reads a session's journal.
func (c *Client) Access(ctx context.Context, name string) (api.JournalAccess, error) {
	var a api.JournalAccess
	err := c.call(ctx, http.MethodGet, "/v1/services/"+url.PathEscape(name)+"/access", nil, &a)
	return a, err
}

// Shutdown asks the agent to leave: its sessions end. It refuses while it holds any, unless force.
func (c *Client) Shutdown(ctx context.Context, force bool) error {
	q := ""
	if force {
		q = "?force"
	}
	return c.call(ctx, http.MethodPost, "/v1/shutdown"+q, nil, nil)
}

// Journal reads a session's journal after a sequence number, with the service's log lines or without, and returns nil
// after the last entry of a session that has ended, handle's error, or why the reading broke off.
func (c *Client) Journal(ctx context.Context, name string, after uint64, logs bool, handle func(api.Entry) error) error {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "logs": {"0"}}
	if logs {
		q.Set("logs", "1")
	}
	conn, err := c.websocket(ctx, "/v1/services/"+url.PathEscape(name)+"/journal", q, 16<<20)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		_, b, err := conn.ReadMessage()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				return nil
			}
			return &api.Problem{Code: api.CodeLost, Message: "the agent has ended", Hint: "run again: it goes on where it was"}
		}
		for line := range bytes.Lines(b) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			var e api.Entry
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("understand the journal: %w", err)
			}
			if err := handle(e); err != nil {
				return err
			}
		}
	}
}

// ensure makes sure that an agent of our version answers. One of another version that holds nothing is replaced if that is
// allowed: it is not to a front end that had an agent and lost it to a newer one, since two that attach again by themselves
// would put out each other's agents for ever.
func (c *Client) ensure(ctx context.Context, replace bool) error {
	select {
	case c.starting <- struct{}{}:
		defer func() { <-c.starting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	checked := c.checked
	c.mu.Unlock()
	if checked {
		return nil
	}
	a, err := c.Agent(ctx)
	if err == nil && a.Version != c.opts.Version && !replace {
		return otherVersion(a, c.opts.Version)
	}
	if err == nil && a.Version != c.opts.Version {
		if err = c.replace(ctx, a); err != nil {
			return err
		}
		err = noAgent()
	}
	var p *api.Problem
	if errors.As(err, &p) && p.Code == CodeNoAgent && c.opts.Start != nil {
		if err = c.opts.Start(ctx); err == nil {
			a, err = c.Agent(ctx)
		}
	}
	if err != nil {
		return err
	}
	if a.Version != c.opts.Version {
		return otherVersion(a, c.opts.Version)
	}
	c.mu.Lock()
	c.checked = true
	c.mu.Unlock()
	return nil
}

// forget makes the next call look again whether there is an agent.
func (c *Client) forget() {
	c.mu.Lock()
	c.checked = false
	c.mu.Unlock()
}

// replace asks an agent of another version to leave, which it does if it holds nothing, and waits until it has.
func (c *Client) replace(ctx context.Context, a api.Agent) error {
	if c.opts.Start == nil {
		return otherVersion(a, c.opts.Version)
	}
	if err := c.Shutdown(ctx, false); err != nil {
		return otherVersion(a, c.opts.Version)
	}
	c.opts.Logger.Info("an agent of another version was replaced", "version", a.Version, "pid", a.PID)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		now, err := c.Agent(ctx)
		var p *api.Problem
		if errors.As(err, &p) && p.Code == CodeNoAgent || err == nil && now.PID != a.PID {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return otherVersion(a, c.opts.Version)
		}
	}
}

func noAgent() *api.Problem {
	return &api.Problem{Code: CodeNoAgent, Message: "no Fairlead agent runs", Hint: "fairlead run, or an editor with Fairlead, starts one"}
}

func otherVersion(a api.Agent, ours string) error {
	return &api.Problem{Code: CodeVersion, Message: fmt.Sprintf("the agent that runs (pid %d) is of version %s, and this is %s", a.PID, a.Version, ours),
		Hint: "stop what it runs, or end it with fairlead agent stop --force, and run again"}
}

// call is one request. Its answer's body goes into out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return refusal(resp)
	}
	if out == nil {
		return nil
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return c.unreached(ctx, err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("understand the agent: %w", err)
	}
	return nil
}

func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.forget()
	// The last three: it ended meanwhile. net/http has no name for the third: the connection was closed before the request
	// was written.
	if notThere(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.HasSuffix(err.Error(), "server closed idle connection") {
		return noAgent()
	}
	return fmt.Errorf("ask the agent: %w", err)
}

// refusal is what the agent says against a request.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	var r struct {
		Problems []*api.Problem `json:"problems"`
	}
	if json.Unmarshal(b, &r) != nil || len(r.Problems) == 0 {
		return fmt.Errorf("the agent says %s: %s", resp.Status, bytes.TrimSpace(b[:min(len(b), 200)]))
	}
	if len(r.Problems) == 1 {
		return r.Problems[0]
	}
	var errs []error
	for _, p := range r.Problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

func (c *Client) websocket(ctx context.Context, path string, q url.Values, limit int64) (*websocket.Conn, error) {
	d := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }, HandshakeTimeout: 10 * time.Second}
	conn, resp, err := d.DialContext(ctx, "ws://agent"+path+"?"+q.Encode(), nil)
	if err != nil {
		if resp != nil {
			defer resp.Body.Close()
			return nil, refusal(resp)
		}
		return nil, c.unreached(ctx, err)
	}
	conn.SetReadLimit(limit)
	return conn, nil
}
