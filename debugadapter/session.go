package debugadapter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Options are what a front end decides.
type Options struct {
	Logger  *slog.Logger // nil: nothing is logged
	Version string       // for the debug console; may be empty
}

const (
	// How long a request waits for the next process. A swap takes two seconds; an editor that gets no answer for longer
	// than this looks frozen.
	patience = 30 * time.Second
	// How long letting go may take before the editor is answered anyway.
	parting = 10 * time.Second
)

// Serve speaks DAP with an editor over rw until the session ends, and closes rw. It returns nil after an orderly
// disconnect, and an error that wraps io.ErrUnexpectedEOF when the editor vanished. Whatever ends it, the service is let go.
func Serve(ctx context.Context, rw io.ReadWriteCloser, host Host, opts Options) error {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		ctx: ctx, log: log, host: host, opts: opts,
		out:     newOutbox(),
		inbox:   make(chan func()),
		done:    make(chan struct{}),
		reverse: map[int]func(obj){},
	}
	written := make(chan struct{})
	go func() {
		s.out.run(rw)
		close(written)
	}()
	go s.read(rw) // not waited for: a read of a terminal or of stdin may outlive its close
	err := s.run()
	s.end(false) // where nothing else did
	close(s.done)
	cancel()
	s.wg.Wait()
	s.out.close()
	select {
	case <-written:
	case <-time.After(2 * time.Second): // an editor that does not read its last answer
	}
	rw.Close()
	return err
}

// session is one editor's debug session. Everything in it belongs to one goroutine, the one that run is called in; others
// hand it functions by post.
//
// Goroutines: the reader of the editor's messages, the writer of its outbox, one at a time for Begin, Restart and Again, one
// for the service's events, one that dials, and per backend a reader and a writer. Serve waits for all but the first.
type session struct {
	ctx  context.Context
	log  *slog.Logger
	host Host
	opts Options

	out   *outbox
	inbox chan func()
	done  chan struct{} // closed when run has returned
	wg    sync.WaitGroup
	over  bool
	err   error

	seq     int
	init    obj               // arguments of initialize; nil before it
	reverse map[int]func(obj) // requests of the debugger to the editor, by our seq

	// The launch or attach request.
	attach     bool
	config     Config
	accepted   bool // initialized was sent
	refused    bool // the request was, after initialized was sent
	start      obj  // the request, until it is answered
	beginning  context.CancelFunc
	progress   string // the id of the progress that is shown
	configured bool   // configurationDone came
	terminated bool   // the editor was told

	service   Service
	program   *Program
	ended     chan struct{} // closed when what the session held is let go; nil before it is
	busy      bool          // a restart is under way
	terminate bool

	be      *backend
	epoch   int  // counts processes and their ends: what was begun for an older one does not count
	coming  bool // a process is on its way, or a stream to it
	absent  string
	gen     api.Generation
	pid     int
	hadOne  bool // a process was configured before
	failed  int  // how often in a row a debugger went before that
	waiting []*waiter

	lists      []*list
	exceptions obj // arguments of setExceptionBreakpoints; nil: the client sent none
	lastID     int
	src        *sources

	stopped  bool // as the client sees it
	lastStop obj  // the body of the last stopped event
	standing bool // as the service was told
}

// waiter is a request that waits for a process.
type waiter struct {
	m     obj
	timer *time.Timer
}

// post hands f to the session's goroutine. false: the session is over.
func (s *session) post(f func()) bool {
	select {
	case s.inbox <- f:
		return true
	case <-s.done:
		return false
	}
}

// spawn runs f beside the session.
func (s *session) spawn(f func()) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		f()
	}()
}

func (s *session) run() error {
	for !s.over {
		select {
		case f := <-s.inbox:
			f()
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	return s.err
}

// finish ends the session.
func (s *session) finish(err error) {
	if !s.over {
		s.over, s.err = true, err
	}
}

func (s *session) read(r io.Reader) {
	buf := bufio.NewReader(r)
	for {
		m, err := readMessage(buf)
		if !s.post(func() { s.fromClient(m, err) }) || err != nil {
			return
		}
	}
}

// fromClient handles one message of the editor's, or the end of them.
func (s *session) fromClient(m obj, err error) {
	if err != nil {
		switch {
		case s.terminated && errors.Is(err, io.EOF):
			s.finish(nil)
		case errors.Is(err, errFraming):
			s.console("the editor sent what is not a message: the debug session ends")
			s.finish(fmt.Errorf("read from the editor: %w", err))
		default:
			s.finish(fmt.Errorf("the editor went away without disconnecting: %w", io.ErrUnexpectedEOF))
		}
		return
	}
	switch m.str("type") {
	case "request":
		s.onRequest(m)
	case "response":
		seq := m.num("request_seq")
		if f := s.reverse[seq]; f != nil {
			delete(s.reverse, seq)
			f(m)
		}
	default:
		s.log.Debug("a message of no known type from the editor", "type", m.str("type"))
	}
}

// send gives the message the next number and queues it.
func (s *session) send(m obj) {
	s.seq++
	m["seq"] = raw(s.seq)
	if err := s.out.put(m); err != nil {
		s.finish(fmt.Errorf("write to the editor: %w", err))
	}
}

func (s *session) event(name string, body any) {
	m := obj{"type": raw("event"), "event": raw(name)}
	if body != nil {
		m["body"] = raw(body)
	}
	s.send(m)
}

// answer answers a request of the editor's with success.
func (s *session) answer(req obj, body any) {
	m := obj{"type": raw("response"), "request_seq": req["seq"], "command": req["command"], "success": raw(true)}
	if body != nil {
		m["body"] = raw(body)
	}
	s.send(m)
}

// The id of the proxy's own errors, apart from Delve's.
const idProxy = 6000

// refuse answers with an error. show: the editor is to show it in a window.
func (s *session) refuse(req obj, message string, show bool) {
	s.send(obj{
		"type": raw("response"), "request_seq": req["seq"], "command": req["command"], "success": raw(false), "message": raw(message),
		"body": raw(map[string]any{"error": map[string]any{"id": idProxy, "format": message, "showUser": show}}),
	})
}

// cancelled is the answer to what was outstanding when its process went.
func (s *session) cancelled(req obj) {
	s.send(obj{"type": raw("response"), "request_seq": req["seq"], "command": req["command"], "success": raw(false), "message": raw("cancelled")})
}

// console says a line in the debug console.
func (s *session) console(line string) {
	s.event("output", map[string]any{"category": "console", "output": "fairlead: " + strings.TrimRight(line, "\n") + "\n"})
}

// words are an error's for a person: what happened, and what to do.
func words(err error) string {
	var lines []string
	for _, p := range api.Problems(err, "") {
		l := p.Error()
		if p.Hint != "" {
			l += ". " + strings.ToUpper(p.Hint[:1]) + p.Hint[1:]
		}
		lines = append(lines, l)
	}
	return strings.Join(lines, "\n")
}

// stand tells the service whether its process stands in the debugger.
func (s *session) stand(standing bool) {
	if s.standing != standing && s.service != nil {
		s.standing = standing
		s.service.Stopped(standing)
	}
}

// letGo ends what the session holds, and calls then.
func (s *session) letGo(terminate bool, then func()) {
	ended := s.end(terminate)
	s.spawn(func() {
		<-ended
		s.post(then)
	})
}

// end lets go of what the session holds, once, beside the session: a service may have events to tell until it has ended.
// The channel is closed when that is done, or has taken too long.
func (s *session) end(terminate bool) <-chan struct{} {
	if s.ended != nil {
		return s.ended
	}
	ended := make(chan struct{})
	s.ended = ended
	if s.beginning != nil {
		s.terminate = terminate
		s.beginning() // what it still brings is let go by who brings it
	}
	s.cut()
	s.stand(false)
	service, program := s.service, s.program
	s.spawn(func() {
		defer close(ended)
		switch {
		case service != nil:
			done := make(chan error, 1)
			go func() { done <- service.End(terminate) }()
			select {
			case err := <-done:
				if err != nil {
					s.log.Warn("letting go of the service", "error", err)
				}
			case <-time.After(parting):
				s.log.Warn("letting go of the service takes too long", "limit", parting)
			}
		case program != nil && program.Close != nil:
			program.Close()
		}
	})
	return ended
}
