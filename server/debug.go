package server

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
)

// debugQueue is how much a front end may be behind in reading what it is told, before it loses its debug session.
const debugQueue = 1024

// debugging is a session's side of debug sessions: one front end debugs at a time. It says whether builds have symbols,
// whether the process is started under the debugger, and whether a swap must wait because the process stands in it.
//
// Once somebody has debugged, builds keep their symbols until the session ends: they cost no more time than others, and
// the next debug session finds a process that it can attach to as it runs.
type debugging struct {
	s *Session

	mu      sync.Mutex
	claim   *Claim
	symbols bool                    // builds have them
	builds  map[api.Generation]bool // of the builds under way and just ended: whether they do
	digests map[api.Digest]bool     // executables that do
	proc    api.ProcessEvent        // the pod's last word
	waiting api.Generation          // waits in hold
	changed chan struct{}           // closed and replaced when hold has to look again
}

func newDebugging(s *Session) *debugging {
	return &debugging{s: s, builds: map[api.Generation]bool{}, digests: map[api.Digest]bool{}, changed: make(chan struct{})}
}

// Claim is one front end's debug session. Its methods may be called at the same time.
type Claim struct {
	d      *debugging
	by     string
	events chan api.DebugEvent // closed when the claim is over

	// Under the lock of debugging.
	onSave  string
	stopped bool
	force   bool // what waits, or comes next, is swapped in at once
	told    int  // the process that was told
	closed  bool
}

// Debug begins a debug session. Where what runs has no symbols it is built anew with them and started under the debugger.
// Another front end that debugs already is a Problem of CodeDebugHeld.
func (s *Session) Debug(by, onSave string) (*Claim, error) {
	if err := s.notYours("the debugger is its owner's"); err != nil {
		return nil, err
	}
	d := s.debug
	d.mu.Lock()
	if c := d.claim; c != nil {
		d.mu.Unlock()
		return nil, &api.Problem{Code: api.CodeDebugHeld, Message: fmt.Sprintf("%s debugs %s already", c.by, s.cfg.Spec.Service),
			Hint: "end that debug session first: a service has one debugger"}
	}
	c := &Claim{d: d, by: by, onSave: onSave, events: make(chan api.DebugEvent, debugQueue)}
	d.claim = c
	rebuild := !d.symbols || d.proc.Digest != "" && !d.digests[d.proc.Digest]
	d.symbols = true
	if note := unknownGo(s.builds.goVersion()); note != "" {
		c.tell(api.DebugEvent{Note: note})
	}
	switch {
	case !rebuild:
		d.tellProcess()
	case d.proc.PID != 0:
		c.tell(api.DebugEvent{Note: "what runs has no symbols: it is built again with them, and started under the debugger"})
	}
	d.mu.Unlock()
	d.show()
	if rebuild {
		s.loop.Changed(syncer.Change{Build: true, Saved: time.Now()})
	}
	return c, nil
}

// The versions of Go whose executables the pod's debugger knows (Delve 1.27.2, pkg/goversion): others are debugged, too,
// and what is shown of them may be wrong.
const (
	debuggerGoMin = 25 // go1.25
	debuggerGoMax = 27
)

// unknownGo says so where an executable's Go, such as "go1.26.8", is older or newer than the debugger knows.
func unknownGo(version string) string {
	rest, ok := strings.CutPrefix(version, "go1.")
	if !ok {
		return ""
	}
	digits, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(strings.SplitN(digits, "rc", 2)[0])
	switch {
	case err != nil:
		return ""
	case n > debuggerGoMax:
		return fmt.Sprintf("%s is newer than the debugger knows (go1.%d): what it shows may be wrong; a newer Fairlead may know it", version, debuggerGoMax)
	case n < debuggerGoMin:
		return fmt.Sprintf("%s is older than the debugger knows (go1.%d): what it shows may be wrong; a newer Go is debugged better", version, debuggerGoMin)
	}
	return ""
}

// tell never blocks: a front end that reads nothing loses its session.
func (c *Claim) tell(e api.DebugEvent) {
	if c.closed {
		return
	}
	select {
	case c.events <- e:
	default:
		c.closed = true
		close(c.events)
	}
}

// Events tells what happens to the process; it is closed when the claim is over.
func (c *Claim) Events() <-chan api.DebugEvent { return c.events }

// Do carries out what the front end says.
func (c *Claim) Do(cmd api.DebugCommand) {
	d := c.d
	d.mu.Lock()
	if d.claim != c {
		d.mu.Unlock()
		return
	}
	if cmd.Stopped != nil {
		c.stopped = *cmd.Stopped
	}
	if cmd.OnSave != "" {
		c.onSave = cmd.OnSave
	}
	restart := cmd.Restart && d.waiting == 0 // else what waits is what it is restarted with
	c.force = c.force || cmd.Restart
	d.look()
	d.mu.Unlock()
	d.show()
	if restart {
		d.s.loop.Changed(syncer.Change{Files: true, Saved: time.Now()}) // the same executable, as a generation of its own
	}
}

// Dial opens a connection to the debugger of a generation's process.
func (c *Claim) Dial(ctx context.Context, g api.Generation) (net.Conn, api.DebugStart, error) {
	c.d.mu.Lock()
	ours := c.d.claim == c
	c.d.mu.Unlock()
	if !ours {
		return nil, api.DebugStart{}, &api.Problem{Code: api.CodeDebugAway, Message: "the debug session is over"}
	}
	return c.d.s.conn.DialDebug(ctx, g)
}

// Close ends the debug session: breakpoints are gone, the process goes on, and what waited is swapped in.
func (c *Claim) Close() {
	d := c.d
	d.mu.Lock()
	if d.claim == c {
		d.claim = nil
	}
	if !c.closed {
		c.closed = true
		close(c.events)
	}
	d.look()
	d.mu.Unlock()
	d.show()
	ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
	defer cancel()
	if err := d.s.conn.ReleaseDebug(ctx); err != nil { // the pod lets go by itself in a minute
		d.s.cfg.Logger.Info("the debugger was not released", "err", err)
	}
}

// over ends the debug session with the session.
func (d *debugging) over() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.claim; c != nil && !c.closed {
		c.closed = true
		close(c.events)
	}
	d.claim = nil
	d.look()
}

// releaseLimit bounds how long the end of a debug session waits for the pod.
const releaseLimit = 5 * time.Second

// choose takes what a person answers while a generation waits.
func (s *Session) choose(ch api.DebugChoice) error {
	d := s.debug
	d.mu.Lock()
	c := d.claim
	if c == nil {
		d.mu.Unlock()
		return &api.Problem{Code: api.CodeDebugAway, Message: s.cfg.Spec.Service + " is not being debugged", Hint: "what is saved is swapped in at once"}
	}
	if ch.OnSave != "" {
		c.onSave = ch.OnSave
	}
	c.force = c.force || ch.Apply && d.waiting != 0
	d.look()
	d.mu.Unlock()
	d.show()
	return nil
}

// look makes hold look again.
func (d *debugging) look() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// hold waits for as long as a swap would take the process away from under whoever looks at it.
func (d *debugging) hold(ctx context.Context, g api.Generation) error {
	told := false
	stood := false // it stood when this was saved
	defer func() {
		d.mu.Lock()
		d.waiting = 0
		d.mu.Unlock()
		if told {
			d.show()
		}
	}()
	for {
		d.mu.Lock()
		c := d.claim
		stood = stood || c != nil && c.stopped
		if c == nil || c.force || c.onSave == api.OnSaveNow || !c.stopped && (c.onSave != api.OnSaveNever || !stood) {
			d.mu.Unlock()
			if told {
				d.s.note(shipping{g})
			}
			return nil
		}
		changed := d.changed
		if !told {
			d.waiting = g
			c.tell(api.DebugEvent{Note: fmt.Sprintf("generation %d is built and waits, since the process stands in the debugger: %s", g, waitsFor(c.onSave))})
		}
		d.mu.Unlock()
		if !told {
			told = true
			d.show()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func waitsFor(onSave string) string {
	if onSave == api.OnSaveNever {
		return "restart, or end debugging, to have it swapped in"
	}
	return "it is swapped in when you continue"
}

// show tells front ends what the debug session is like.
func (d *debugging) show() {
	d.mu.Lock()
	var now *api.Debug
	if c := d.claim; c != nil {
		now = &api.Debug{By: c.by, Stopped: c.stopped, OnSave: c.onSave, Waiting: d.waiting, Ready: d.proc.PID != 0 && c.told == d.proc.PID}
	}
	d.mu.Unlock()
	d.s.note(debugged{now})
}

// building: a build begins. It says whether it is to have symbols.
func (d *debugging) building(g api.Generation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for old := range d.builds {
		if old+16 < g {
			delete(d.builds, old)
		}
	}
	d.builds[g] = d.symbols
	if d.claim != nil {
		d.claim.tell(api.DebugEvent{Building: g})
	}
}

// wantSymbols says what the build under way is to have.
func (d *debugging) wantSymbols() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var last api.Generation
	for g := range d.builds {
		last = max(last, g)
	}
	return d.builds[last]
}

// start says whether the process is to be started under the debugger.
func (d *debugging) start() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.claim != nil
}

// event takes what happens in the session.
func (d *debugging) event(e api.Event) {
	if _, ok := e.(*api.LogEvent); ok { // by the hundred thousand
		return
	}
	d.mu.Lock()
	ready := false
	switch e := e.(type) {
	case *api.BuildEvent:
		if e.OK {
			d.digests[e.Digest] = d.builds[e.Generation]
		} else if d.claim != nil && !e.Canceled {
			d.claim.tell(api.DebugEvent{Note: "the last save does not build: what ran before goes on"})
		}
	case *api.ProcessEvent:
		d.proc = *e
		c := d.claim
		if c == nil {
			break
		}
		switch e.State {
		case api.StateStarting, api.StateRunning:
			c.force = c.force && e.State == api.StateRunning
			ready = d.tellProcess()
		case api.StateStopping:
			c.stopped = false
		case api.StateExited, api.StateFailed:
			c.stopped, c.told = false, 0
			d.proc.PID = 0
			c.tell(api.DebugEvent{Gone: e.Reason + ": the next save starts it again"})
			ready = true
		}
	case *api.EnvironmentEvent:
		if c := d.claim; c != nil && e.State == "lost" {
			c.told = 0
			c.tell(api.DebugEvent{Gone: "the connection is lost: " + e.Reason})
		}
	case *api.ProblemEvent:
		if c := d.claim; c != nil && e.Owner == keyDebug {
			text := e.Message
			if e.Hint != "" {
				text += " (" + e.Hint + ")"
			}
			c.tell(api.DebugEvent{Note: text})
		}
	}
	d.mu.Unlock()
	if ready {
		d.show()
	}
}

// resume goes on after the connection is there (again): the process may be the one that ran before, of which no event will
// come. It returns at once.
func (d *debugging) resume() {
	d.mu.Lock()
	c := d.claim
	d.mu.Unlock()
	if c == nil {
		return
	}
	go func() { // ends with the answer, or the connection's end
		ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
		defer cancel()
		if st, err := d.s.conn.Status(ctx); err == nil {
			d.connected(st)
		}
	}()
}

func (d *debugging) connected(st api.Status) {
	d.mu.Lock()
	ready := false
	if st.PID != 0 && st.Generation >= d.proc.Generation {
		d.proc.Generation, d.proc.PID, d.proc.Digest, d.proc.State = st.Generation, st.PID, st.Digest, st.State
		ready = d.tellProcess()
	}
	d.mu.Unlock()
	if ready {
		d.show()
	}
}

// tellProcess tells the claim that the process can be debugged, once, if it can.
func (d *debugging) tellProcess() bool {
	c := d.claim
	if c == nil || d.proc.PID == 0 || c.told == d.proc.PID || !d.digests[d.proc.Digest] {
		return false
	}
	c.told = d.proc.PID
	c.tell(api.DebugEvent{Process: d.proc.Generation})
	return true
}
