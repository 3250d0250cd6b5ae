package kube

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"fairlead.dev/api"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// maxLogLine is where a line is cut; container runtimes cut at 16 KiB too. The difference is what a cut rune leaves over.
	maxLogLine = 16<<10 - utf8.UTFMax
	// recentLines is how many lines of a container are known again after a stream broke off. Lines of one container are out
	// of order by what its two streams are apart, which is microseconds.
	recentLines = 4096
	// A stream that broke off is opened again after logRest, after longer each time that nothing came of it.
	logRest    = 200 * time.Millisecond
	logRestMax = 5 * time.Second
	// goneLimit is how long the stream of a pod that is no longer there may last: the rest of it is on its way.
	goneLimit = 10 * time.Second
	// markLimit is how long what is known of a container's restart may be behind what is.
	markLimit = 30 * time.Second
	// restartLimit is how long a stream may last after its container restarted: it may be the next one's, and what the one
	// before still wrote comes first.
	restartLimit = time.Second
	// failedLines is how many lines of each init container a failed Open tells, failedLimit how long it may ask for them.
	failedLines = 100
	failedLimit = 3 * time.Second
)

// FollowLogs tells the lines of the environment's other containers until ctx ends: of sidecars, and of init containers
// while the service's own does not run. emit is called by one goroutine at a time, in order for each container. A stream
// that breaks off is opened again, from where it broke off; a pod that comes in place of another is followed likewise.
// What an earlier agent has followed in an environment that was there already is not told again.
//
// It returns early with an *api.Problem where the right to read logs is missing, and that is no more than a warning.
func (e *Environment) FollowLogs(ctx context.Context, emit func(*api.LogEvent)) error {
	if e.container == "" { // not even the service's own is known
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &follower{e: e, tails: map[tailKey]*logTail{}, fail: cancel, skip: e.Info().Resumed}
	var mu sync.Mutex
	f.emit = func(l *api.LogEvent) {
		mu.Lock()
		defer mu.Unlock()
		emit(l)
	}
	defer f.wg.Wait()
	for rest := logRest; ctx.Err() == nil; rest = min(2*rest, logRestMax) {
		began := time.Now()
		f.watch(ctx) // its error is the connection's too, which tells it
		if time.Since(began) > logRestMax {
			rest = logRest
		}
		sleep(ctx, nil, rest)
	}
	var p *api.Problem
	if errors.As(context.Cause(ctx), &p) {
		return p
	}
	return nil
}

// follower is a FollowLogs at work. Its goroutines are one a container.
type follower struct {
	e    *Environment
	emit func(*api.LogEvent)
	fail context.CancelCauseFunc
	wg   sync.WaitGroup

	tails map[tailKey]*logTail
	skip  bool // what is there at the first look was told before, by another agent
}

type tailKey struct {
	pod       types.UID
	container string
}

// watch keeps the tails in step with the environment's pods until the watch ends.
func (f *follower) watch(ctx context.Context) error {
	pods := f.e.c.kube.CoreV1().Pods(f.e.namespace)
	sel := metav1.ListOptions{LabelSelector: labelEnvironment + "=" + f.e.name}
	l, err := pods.List(ctx, sel)
	if err != nil {
		return err
	}
	there := map[types.UID]bool{}
	for i := range l.Items {
		there[l.Items[i].UID] = true
		f.update(ctx, &l.Items[i])
	}
	f.skip = false
	for k := range f.tails {
		if !there[k.pod] {
			f.gone(k.pod)
		}
	}
	sel.ResourceVersion = l.ResourceVersion
	w, err := pods.Watch(ctx, sel)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, ok := <-w.ResultChan():
			p, isPod := ev.Object.(*corev1.Pod)
			switch {
			case !ok || !isPod:
				return errRelist
			case ev.Type == watch.Deleted:
				f.update(ctx, p)
				f.gone(p.UID)
			default:
				f.update(ctx, p)
			}
		}
	}
}

// update tells the tails of a pod's containers what has become of them, and begins those that are missing.
func (f *follower) update(ctx context.Context, p *corev1.Pod) {
	up := false
	for i := range p.Status.ContainerStatuses {
		st := &p.Status.ContainerStatuses[i]
		if st.Name == f.e.container {
			up = st.State.Running != nil
		} else {
			f.container(ctx, p, st)
		}
	}
	for i := range p.Status.InitContainerStatuses {
		st := &p.Status.InitContainerStatuses[i]
		if st.Name != installContainer && (!up || isSidecar(&p.Spec, st.Name) || f.tails[tailKey{p.UID, st.Name}] != nil) {
			f.container(ctx, p, st)
		}
	}
}

// isSidecar tells whether an init container runs beside the others.
func isSidecar(s *corev1.PodSpec, name string) bool {
	for _, c := range s.InitContainers {
		if c.Name == name {
			return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	return false
}

func (f *follower) container(ctx context.Context, p *corev1.Pod, st *corev1.ContainerStatus) {
	now := instance{id: st.ContainerID, ended: st.State.Running == nil}
	if t := st.LastTerminationState.Terminated; t != nil {
		now.last = t.ContainerID
	}
	key := tailKey{p.UID, st.Name}
	t := f.tails[key]
	if t == nil {
		if now.id == "" {
			return // it has not started yet
		}
		ctx, cancel := context.WithCancel(ctx)
		t = &logTail{f: f, pod: p.Name, container: st.Name, wake: make(chan struct{}, 1), stop: cancel}
		if f.skip {
			t.skip = now.id
		}
		f.tails[key] = t
		t.set(func(i *instance) { *i = now })
		f.wg.Go(func() {
			defer cancel()
			t.run(ctx)
		})
		return
	}
	t.set(func(i *instance) {
		now.gone = i.gone
		*i = now
	})
}

// gone tells a pod's tails that it is no longer there.
func (f *follower) gone(pod types.UID) {
	for k, t := range f.tails {
		if k.pod == pod {
			delete(f.tails, k)
			t.set(func(i *instance) { i.gone = true })
			time.AfterFunc(goneLimit, t.stop)
		}
	}
}

// logTail follows one container through its restarts.
type logTail struct {
	f              *follower
	pod, container string
	wake           chan struct{} // something has changed
	stop           context.CancelFunc

	mu     sync.Mutex
	now    instance
	stream context.CancelFunc // ends the stream that is open

	// Of the goroutine.
	skip    string    // the instance of which only what comes after asked is wanted
	asked   time.Time // on this machine's clock
	begun   bool      // a stream of skip was asked for
	told    recent
	marks   []mark   // of the streams opened in the last markLimit, and of the one before
	pending struct { // the line that is being told in parts
		at    int64
		parts int
	}
}

// mark is how far the container was told when a stream was opened.
type mark struct {
	opened time.Time
	at     int64 // 0: not at all
}

// instance is a container between two restarts.
type instance struct {
	id, last string // last is the one before
	ended    bool
	gone     bool // with its pod
}

func (t *logTail) set(change func(*instance)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.now
	if change(&t.now); was != t.now {
		if was.id != "" && was.id != t.now.id && t.stream != nil {
			time.AfterFunc(restartLimit, t.stream)
		}
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func (t *logTail) get() instance {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

func (t *logTail) run(ctx context.Context) {
	var cur, done string // the instance whose lines are told; one that has ended and has no more
	for rest := logRest; ctx.Err() == nil; {
		i := t.get()
		if i.id == "" || i.id == done {
			if i.gone {
				return
			}
			sleep(ctx, t.wake, time.Hour)
			continue
		}
		// What cur still wrote. It is asked for even when all seemed to be told: the API knows "the container" only, and what
		// was read last may have been the next one's already.
		restarted := cur != "" && cur != i.id && cur == i.last
		lines, err := t.read(ctx, i, restarted)
		switch {
		case err == nil && restarted:
			cur, rest, t.marks = i.id, logRest, nil
			continue
		case apierrors.IsForbidden(err):
			t.f.fail(noLogs(t.f.e.c.explain("read the log of "+t.pod+"/"+t.container, err)))
			return
		case i.gone && (apierrors.IsNotFound(err) || apierrors.IsBadRequest(err)):
			return
		case restarted && (apierrors.IsNotFound(err) || apierrors.IsBadRequest(err)):
			cur, t.marks = i.id, nil // it is removed already
			continue
		case err == nil && i.ended:
			cur, done = i.id, i.id
			continue
		}
		if !restarted {
			cur = i.id
		}
		if lines > 0 {
			rest = logRest
		}
		sleep(ctx, t.wake, rest)
		rest = min(2*rest, logRestMax)
	}
}

// noLogs makes a warning of a right that is missing.
func noLogs(err error) error {
	p := *asProblem(err)
	p.Code, p.Severity = api.CodeNoLogs, api.SeverityWarning
	p.Message += ", so the lines of the environment's other containers are not shown"
	return &p
}

// read tells what a stream has, until it ends; nil if it ended as it should. former asks for the instance before.
func (t *logTail) read(ctx context.Context, i instance, former bool) (lines int, err error) {
	o := &corev1.PodLogOptions{Container: t.container, Timestamps: true, Follow: !i.ended && !former, Previous: former}
	left := t.told.again()
	last := t.told.last()
	if former {
		if len(t.marks) > 0 {
			last = t.marks[0].at
		}
	} else {
		for len(t.marks) > 1 && time.Since(t.marks[1].opened) > markLimit {
			t.marks = t.marks[1:]
		}
		t.marks = append(t.marks, mark{time.Now(), last})
	}
	switch {
	case last != 0:
		// The API takes whole seconds. The one before is asked for too, as lines may be out of order.
		o.SinceTime = &metav1.Time{Time: time.Unix(0, last).Add(-time.Second)}
	case t.skip != "" && t.begun: // the node's clock is not ours: a time that has passed is the same on both
		o.SinceSeconds = new(int64(time.Since(t.asked)/time.Second) + 1)
	case t.skip == i.id && !former:
		o.TailLines = new(int64(0))
		t.begun, t.asked = true, time.Now()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.stream = cancel
	if t.now.id != i.id {
		time.AfterFunc(restartLimit, cancel)
	}
	t.mu.Unlock()
	s, err := t.f.e.c.kube.CoreV1().Pods(t.f.e.namespace).GetLogs(t.pod, o).Stream(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	r := newLogReader(s)
	for {
		l, err := r.next()
		if err != nil {
			if err == io.EOF {
				err = nil
				if l.text != "" && (i.ended || former) { // the container ended within a line
					t.tell(l)
				}
			}
			return lines, err
		}
		if !left.has(l) && t.tell(l) {
			lines++
		}
	}
}

// tell tells a line or a part of one, unless it was told when the stream before broke off within the line.
func (t *logTail) tell(l logLine) bool {
	if p := &t.pending; l.part > 0 || l.partial {
		if p.at == l.at && l.part < p.parts {
			return false
		}
		p.at, p.parts = l.at, l.part+1
	}
	if !l.partial {
		t.told.add(l.at)
		t.pending.at, t.pending.parts = 0, 0
	}
	t.f.emit(&api.LogEvent{Header: api.Header{Type: api.KindLog, Time: time.Unix(0, l.at).UTC()},
		Stream: "stdout", Text: l.text, Partial: l.partial, Process: t.pod + "/" + t.container})
	return true
}

// recent has the times of the lines that were told last, on the node's clock and in nanoseconds: by them a line is known
// that comes again.
type recent struct {
	at []int64 // a ring, once it is full
	n  int     // that were ever added
}

func (r *recent) add(at int64) {
	if len(r.at) < recentLines {
		r.at = append(r.at, at)
	} else {
		r.at[r.n%recentLines] = at
	}
	r.n++
}

// last is 0 if there is none.
func (r *recent) last() int64 {
	if r.n == 0 {
		return 0
	}
	return r.at[(r.n-1)%recentLines]
}

// again is what may come again at the beginning of a new stream.
func (r *recent) again() *again {
	a := &again{times: map[int64]int{}}
	for _, t := range r.at {
		a.times[t]++
	}
	if r.n > recentLines {
		a.from = r.at[r.n%recentLines]
	}
	return a
}

// again knows the lines that were told before the stream.
type again struct {
	times map[int64]int // of lines that have not come again yet
	from  int64         // those until then are known, too; 0 once a new line has come
}

// has says whether a line was told before. A line that comes in parts has one time.
func (a *again) has(l logLine) bool {
	if a.times[l.at] > 0 {
		if !l.partial {
			a.times[l.at]--
		}
		return true
	}
	if l.at <= a.from { // of lines with one time, some may be known and some no longer
		return true
	}
	a.from = 0
	return false
}

// logLine is a line of a log stream, or a part of one.
type logLine struct {
	at      int64
	text    string
	partial bool // the rest follows
	part    int  // of the line, from 0
}

// logReader reads a log stream with time stamps.
type logReader struct {
	r     *bufio.Reader
	at    int64
	part  int
	carry []byte // the beginning of a rune
}

func newLogReader(r io.Reader) *logReader { return &logReader{r: bufio.NewReaderSize(r, maxLogLine)} }

// next returns the next line. With io.EOF comes what there was without an end of line.
func (r *logReader) next() (logLine, error) {
	for {
		b, err := r.r.ReadSlice('\n')
		if r.part == 0 && (err == nil || err == bufio.ErrBufferFull || err == io.EOF) {
			stamp, text, ok := bytes.Cut(b, []byte{' '})
			at, perr := time.Parse(time.RFC3339Nano, string(stamp))
			if !ok || perr != nil { // no container's line: the kubelet's own words, or the end of a stream that was cut
				if err == bufio.ErrBufferFull {
					err = r.rest()
				}
				if err != nil {
					return logLine{}, err
				}
				continue
			}
			r.at, b = at.UnixNano(), text
		}
		l := logLine{at: r.at, part: r.part}
		switch {
		case err == nil:
			r.part = 0
			b = bytes.TrimSuffix(b[:len(b)-1], []byte{'\r'})
		case err == bufio.ErrBufferFull:
			r.part++
			l.partial = true
		case err == io.EOF:
		default:
			return logLine{}, err
		}
		b = append(r.carry, b...)
		r.carry = nil
		if l.partial {
			n := cutRune(b)
			r.carry = bytes.Clone(b[n:])
			b = b[:n]
		}
		l.text = strings.ToValidUTF8(string(b), "\ufffd")
		if err == io.EOF {
			return l, err
		}
		return l, nil
	}
}

// rest reads to the end of the line.
func (r *logReader) rest() error {
	for {
		if _, err := r.r.ReadSlice('\n'); err != bufio.ErrBufferFull {
			return err
		}
	}
}

// cutRune is the length of b without the beginning of a rune at its end.
func cutRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-n:]) {
				return len(b) - n
			}
			break
		}
	}
	return len(b)
}

// sleep waits for a time, a change or the end of ctx.
func sleep(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
}

// notUp is why a pod did not come up, with what its init containers wrote last.
type notUp struct {
	error
	lines []*api.LogEvent
}

func (n *notUp) Unwrap() error { return n.error }

// LogLines are the lines that explain the error.
func (n *notUp) LogLines() []*api.LogEvent { return n.lines }

// withLines adds to an error what the environment's init containers wrote that have failed or still run. Without the right
// to read logs, or with none to read, it is the error alone.
func (c *client) withLines(ctx context.Context, w wants, err error) error {
	if ctx.Err() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, failedLimit)
	defer cancel()
	pods, lerr := c.kube.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelEnvironment + "=" + w.name})
	if lerr != nil {
		return err
	}
	var lines []*api.LogEvent
	for _, p := range pods.Items {
		for _, st := range p.Status.InitContainerStatuses {
			t := st.State.Terminated
			if st.Name == installContainer || st.ContainerID == "" || t != nil && t.ExitCode == 0 {
				continue
			}
			had := len(lines)
			// One that was just started again has said nothing yet; the one before it has.
			for _, previous := range []bool{false, true} {
				if previous && (len(lines) > had || st.RestartCount == 0) {
					break
				}
				s, serr := c.kube.CoreV1().Pods(w.namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: st.Name, Timestamps: true, TailLines: new(int64(failedLines)), Previous: previous}).Stream(ctx)
				if serr != nil {
					continue
				}
				tl := &logTail{pod: p.Name, container: st.Name, f: &follower{emit: func(l *api.LogEvent) { lines = append(lines, l) }}}
				for r := newLogReader(s); ; {
					l, rerr := r.next()
					if rerr == nil || rerr == io.EOF && l.text != "" {
						tl.tell(l)
					}
					if rerr != nil || len(lines) > 10*failedLines {
						break
					}
				}
				s.Close()
			}
		}
	}
	if len(lines) == 0 {
		return err
	}
	return &notUp{err, lines}
}
