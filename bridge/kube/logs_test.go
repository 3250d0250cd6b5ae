package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"fairlead.dev/api"

	diff "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// logServer is an API server's side of pods and their logs, as the kubelet gives them: with stamps of nanoseconds, asked
// for from whole seconds, for a container or for the one before it.
type logServer struct {
	t *testing.T

	mu                sync.Mutex
	pods              map[string]*corev1.Pod
	events            []string // of the watch, in JSON
	logs              map[string][]stamped
	changed           chan struct{}
	deny              bool
	cut               func() int // how many bytes a stream lasts; nil: for ever
	streams, previous int
	asked             []string // queries of streams
}

type stamped struct {
	at   time.Time
	text string
}

func newLogServer(t *testing.T) (*logServer, *Environment) {
	s := &logServer{t: t, pods: map[string]*corev1.Pod{}, logs: map[string][]stamped{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/namespaces/ns/pods", s.servePods)
	mux.HandleFunc("GET /api/v1/namespaces/ns/pods/{pod}/log", s.serveLog)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	set, err := kubernetes.NewForConfig(&rest.Config{Host: srv.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s, &Environment{c: &client{kube: set, context: "test", server: srv.URL}, namespace: "ns", name: "shop-1", container: "shop"}
}

// change does something under the lock, and tells those who wait.
func (s *logServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// run puts containers into a pod: name, and "name:init" for one of the init containers. Each runs under an ID of its own.
func (s *logServer) run(pod string, up bool, containers ...string) {
	s.change(func() {
		p := s.pods[pod]
		kind := "MODIFIED"
		if p == nil {
			kind = "ADDED"
			p = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: "ns", UID: types.UID("uid-" + pod), Labels: map[string]string{labelEnvironment: "shop-1"}}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "shop", ContainerID: "c://" + pod + "/shop/0"}}
			s.pods[pod] = p
		}
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{}
		if up {
			p.Status.ContainerStatuses[0].State.Running = &corev1.ContainerStateRunning{}
		}
		for _, c := range containers {
			name, init := strings.CutSuffix(c, ":init")
			list := &p.Status.ContainerStatuses
			if init {
				list = &p.Status.InitContainerStatuses
			}
			i := slices.IndexFunc(*list, func(st corev1.ContainerStatus) bool { return st.Name == name })
			if i < 0 {
				*list = append(*list, corev1.ContainerStatus{Name: name, RestartCount: -1})
				i = len(*list) - 1
			}
			st := &(*list)[i]
			if st.ContainerID != "" {
				st.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: st.ContainerID}
			}
			st.RestartCount++
			st.ContainerID = fmt.Sprintf("c://%s/%s/%d", pod, name, st.RestartCount)
			st.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
		}
		s.tell(kind, p)
	})
}

// end ends a container.
func (s *logServer) end(pod, name string) {
	s.change(func() {
		p := s.pods[pod]
		for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
			for i := range list {
				if list[i].Name == name {
					list[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: list[i].ContainerID, ExitCode: 1}}
				}
			}
		}
		s.tell("MODIFIED", p)
	})
}

// remove deletes a pod.
func (s *logServer) remove(pod string) {
	s.change(func() {
		s.tell("DELETED", s.pods[pod])
		delete(s.pods, pod)
	})
}

// write writes lines of a container that runs.
func (s *logServer) write(pod, name string, lines ...stamped) {
	s.change(func() {
		id := s.status(pod, name).ContainerID
		s.logs[id] = append(s.logs[id], lines...)
	})
}

func (s *logServer) status(pod, name string) *corev1.ContainerStatus {
	if p := s.pods[pod]; p != nil {
		for _, st := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses) {
			if st.Name == name {
				return &st
			}
		}
	}
	return nil
}

func (s *logServer) tell(kind string, p *corev1.Pod) {
	p.ResourceVersion = strconv.Itoa(len(s.events) + 1)
	b, err := json.Marshal(map[string]any{"type": kind, "object": p.DeepCopy()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.events = append(s.events, string(b))
}

func (s *logServer) servePods(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if sel := r.FormValue("labelSelector"); sel != labelEnvironment+"=shop-1" {
		s.t.Errorf("selector %q", sel)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.FormValue("watch") == "" {
		l := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(len(s.events))}}
		for _, p := range s.pods {
			l.Items = append(l.Items, *p)
		}
		json.NewEncoder(w).Encode(l)
		return
	}
	n, _ := strconv.Atoi(r.FormValue("resourceVersion"))
	for {
		for ; n < len(s.events); n++ {
			fmt.Fprintln(w, s.events[n])
		}
		w.(http.Flusher).Flush()
		if !s.wait(r.Context()) {
			return
		}
	}
}

// wait waits for a change, without the lock.
func (s *logServer) wait(ctx context.Context) bool {
	ch := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-ch:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *logServer) serveLog(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	s.asked = append(s.asked, r.URL.RawQuery)
	q := r.URL.Query()
	refuse := func(err *apierrors.StatusError) {
		err.ErrStatus.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(err.ErrStatus.Code))
		json.NewEncoder(w).Encode(err.ErrStatus)
	}
	st := s.status(r.PathValue("pod"), q.Get("container"))
	switch {
	case s.deny:
		refuse(apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New(`User "u" cannot get resource "pods/log" in API group "" in the namespace "ns"`)))
		return
	case st == nil:
		refuse(apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, r.PathValue("pod")))
		return
	case q.Get("timestamps") != "true":
		s.t.Errorf("query %v", q)
	}
	id := st.ContainerID
	if q.Get("previous") == "true" {
		if st.LastTerminationState.Terminated == nil {
			refuse(apierrors.NewBadRequest("previous terminated container not found"))
			return
		}
		id = st.LastTerminationState.Terminated.ContainerID
	}
	from := time.Time{}
	if v := q.Get("sinceTime"); v != "" {
		var err error
		if from, err = time.Parse("2006-01-02T15:04:05Z", v); err != nil {
			s.t.Error(err)
		}
	}
	if v := q.Get("sinceSeconds"); v != "" {
		n, _ := strconv.Atoi(v)
		from = time.Now().Add(-time.Duration(n) * time.Second)
	}
	n, left := 0, -1
	if q.Get("tailLines") == "0" {
		n = len(s.logs[id])
	}
	if s.cut != nil {
		left = s.cut()
	}
	if q.Get("previous") == "true" {
		if s.previous++; s.previous > 2 { // it may be asked for whole
			left = -1
		}
	}
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		for ; n < len(s.logs[id]); n++ {
			l := s.logs[id][n]
			if l.at.Before(from) {
				continue
			}
			b := l.at.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + l.text + "\n"
			if left >= 0 {
				if left < len(b) {
					w.Write([]byte(b[:left]))
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				left -= len(b)
			}
			w.Write([]byte(b))
		}
		w.(http.Flusher).Flush()
		now := s.status(r.PathValue("pod"), q.Get("container"))
		if q.Get("follow") != "true" || now == nil || now.ContainerID != id || now.State.Running == nil {
			return
		}
		if !s.wait(r.Context()) {
			return
		}
	}
}

// heard is what FollowLogs told.
type heard struct {
	mu    sync.Mutex
	lines []*api.LogEvent
	more  chan struct{}
	err   error
	ended chan struct{}
}

func follow(t *testing.T, e *Environment) *heard {
	ctx, cancel := context.WithCancel(t.Context())
	h := &heard{more: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		h.err = e.FollowLogs(ctx, func(l *api.LogEvent) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lines = append(h.lines, l)
			select {
			case h.more <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-h.ended })
	return h
}

// of waits for n lines of a container, and returns their texts.
func (h *heard) of(t *testing.T, process string, n int) []string {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		h.mu.Lock()
		var got []string
		for _, l := range h.lines {
			if l.Process == process {
				got = append(got, l.Text)
			}
		}
		h.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-h.more:
		case <-h.ended:
			t.Fatalf("it ended: %v, with %d lines of %s, want %d", h.err, len(got), process, n)
		case <-limit:
			t.Fatalf("%d lines of %s, want %d", len(got), process, n)
		}
	}
}

func numbered(from, n int, at time.Time) []stamped {
	var out []stamped
	for i := range n {
		out = append(out, stamped{at.Add(time.Duration(from+i) * time.Millisecond), fmt.Sprintf("line %d", from+i)})
	}
	return out
}

func texts(lines []stamped) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.text)
	}
	return out
}

var day = time.Date(2026, 3, 10, 12, 0, 0, 123456789, time.UTC)

// Sidecars are followed, through a restart and into the pod that comes in place of the first; neither the service nor our
// own init container is.
func TestFollowLogs(t *testing.T) {
	s, e := newLogServer(t)
	s.run("shop-1-a", true, "proxy", installContainer+":init", "migrate:init")
	s.write("shop-1-a", "proxy", numbered(0, 3, day)...)
	for _, quiet := range []string{"shop", installContainer, "migrate"} {
		s.write("shop-1-a", quiet, numbered(0, 3, day)...)
	}
	h := follow(t, e)
	h.of(t, "shop-1-a/proxy", 3)
	s.write("shop-1-a", "proxy", numbered(3, 2, day)...)
	h.of(t, "shop-1-a/proxy", 5)
	s.end("shop-1-a", "proxy")
	s.run("shop-1-a", true, "proxy")
	s.write("shop-1-a", "proxy", numbered(5, 3, day)...)
	if d := diff.Diff(texts(numbered(0, 8, day)), h.of(t, "shop-1-a/proxy", 8)); d != "" {
		t.Error(d)
	}
	// Another pod, whose init container fails.
	s.run("shop-1-b", false, "migrate:init", installContainer+":init")
	s.write("shop-1-b", installContainer, numbered(0, 3, day)...)
	s.write("shop-1-b", "migrate", numbered(0, 2, day)...)
	h.of(t, "shop-1-b/migrate", 2)
	s.end("shop-1-b", "migrate")
	s.run("shop-1-b", false, "migrate:init")
	s.write("shop-1-b", "migrate", numbered(2, 2, day)...)
	s.remove("shop-1-a")
	h.of(t, "shop-1-b/migrate", 4)
	s.run("shop-1-b", true, "proxy")
	s.write("shop-1-b", "proxy", numbered(0, 2, day)...)
	h.of(t, "shop-1-b/proxy", 2)

	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lines {
		if strings.HasSuffix(l.Process, "/shop") || l.Process == "shop-1-a/migrate" || strings.HasSuffix(l.Process, installContainer) {
			t.Errorf("%s: %s", l.Process, l.Text)
		}
	}
	if len(h.lines) != 14 {
		t.Errorf("%d lines", len(h.lines))
	}
	if d := diff.Diff(&api.LogEvent{Header: api.Header{Type: api.KindLog, Time: day}, Stream: "stdout", Text: "line 0", Process: "shop-1-a/proxy"}, h.lines[0]); d != "" {
		t.Error(d)
	}
}

// Streams that break off at random places, within a line and within a second, and a container that restarts meanwhile:
// every line is told once, in order, though stamps are equal now and then, and out of order.
func TestLogsResume(t *testing.T) {
	t.Run("thin", func(t *testing.T) { testLogsResume(t, 2*time.Millisecond, 150_000, 6) })
	// More lines come again than are known one by one.
	t.Run("dense", func(t *testing.T) { testLogsResume(t, 300*time.Microsecond, 520_000, 4) })
}

// lockedSource is for the server's goroutines and the test's.
type lockedSource struct {
	mu  sync.Mutex
	src rand.Source
}

func (l *lockedSource) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.src.Uint64()
}

func testLogsResume(t *testing.T, apart time.Duration, again, streams int) {
	s, e := newLogServer(t)
	rnd := rand.New(&lockedSource{src: rand.NewPCG(3, 4)})
	s.cut = func() int { // again is more than two seconds of lines, which come again
		if s.streams < 3 {
			return rnd.IntN(20_000)
		}
		return again + int(rnd.ExpFloat64()*40_000)
	}
	s.run("shop-1-a", true, "proxy")
	h := follow(t, e)
	const total = 12_000
	half := func(text string) int {
		var n int
		fmt.Sscanf(text, "line %d", &n)
		return n / (total/2 + 1)
	}
	at := day
	var want []string
	for i := range total {
		at = at.Add(time.Duration(rnd.IntN(3)) * apart)
		l := stamped{at, fmt.Sprintf("line %d %s", i, strings.Repeat("x", rnd.IntN(40)))}
		if i%11 == 0 { // the other stream's writer was slower
			l.at = at.Add(-time.Millisecond)
		}
		if i%3001 == 7 {
			l.text += strings.Repeat("é", 20_000)
		}
		want = append(want, l.text)
		s.write("shop-1-a", "proxy", l)
		if i == total/2 {
			s.end("shop-1-a", "proxy")
			s.run("shop-1-a", true, "proxy")
			at = at.Add(10 * time.Millisecond)
		}
		if i%500 == 0 {
			h.of(t, "shop-1-a/proxy", i/2) // lines come while streams break
		}
	}
	limit := time.After(2 * time.Minute) // a stream that brings nothing new is opened again after up to five seconds
	for {
		var got []string
		part := ""
		h.mu.Lock()
		for _, l := range h.lines {
			if len(l.Text) > 16<<10 || !utf8.ValidString(l.Text) {
				t.Fatalf("a text of %d bytes", len(l.Text))
			}
			if part += l.Text; !l.Partial {
				got, part = append(got, part), ""
			}
		}
		h.mu.Unlock()
		if len(got) >= total {
			// Lines of the restarted container may come before the last of the one before, but each one's in order.
			slices.SortStableFunc(got, func(a, b string) int { return cmp.Compare(half(a), half(b)) })
			if d := diff.Diff(want, got); d != "" {
				t.Fatalf("%.2000s", d)
			}
			break
		}
		select {
		case <-h.more:
		case <-limit:
			t.Fatalf("%d lines of %d over %d streams, the last for %s", len(got), total, s.streams, s.asked[len(s.asked)-1])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams < streams {
		t.Errorf("%d streams", s.streams)
	}
}

// A long line whose stream breaks off within it is told once, part by part.
func TestLogsResumeWithinALine(t *testing.T) {
	s, e := newLogServer(t)
	cuts := []int{20_000, 50_000, 50_000, 100}
	s.cut = func() int {
		if len(cuts) == 0 {
			return 1 << 20
		}
		n := cuts[0]
		cuts = cuts[1:]
		return n
	}
	long := strings.Repeat("0123456789", 10_000)
	s.run("shop-1-a", true, "proxy")
	s.write("shop-1-a", "proxy", stamped{day, long}, stamped{day, "short"})
	h := follow(t, e)
	got := h.of(t, "shop-1-a/proxy", 8)
	if strings.Join(got[:7], "") != long || got[7] != "short" || len(got) != 8 {
		t.Errorf("%d parts, %d bytes, %.20q", len(got), len(strings.Join(got, "")), got[len(got)-1])
	}
}

// What an earlier agent has shown is not told again; what comes while the first stream is broken is.
func TestLogsOfAResumedEnvironment(t *testing.T) {
	s, e := newLogServer(t)
	e.info.Resumed = true
	s.run("shop-1-a", true, "proxy")
	now := time.Now()
	s.write("shop-1-a", "proxy", stamped{now.Add(-time.Hour), "old"})
	s.cut = func() int { s.cut = nil; return 0 }
	h := follow(t, e)
	eventually(t, "a stream", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.streams > 0 })
	s.write("shop-1-a", "proxy", stamped{time.Now(), "new"})
	s.run("shop-1-b", true, "proxy")
	s.write("shop-1-b", "proxy", stamped{now.Add(-time.Hour), "of another"})
	if got := h.of(t, "shop-1-a/proxy", 1); got[0] != "new" || len(got) != 1 {
		t.Errorf("%q", got)
	}
	if got := h.of(t, "shop-1-b/proxy", 1); got[0] != "of another" {
		t.Errorf("%q", got)
	}
}

// Without the right there is one warning that names the rule, and nothing is asked for where there is nothing to read.
func TestLogsForbidden(t *testing.T) {
	s, e := newLogServer(t)
	s.deny = true
	s.run("shop-1-a", true)
	h := follow(t, e)
	s.run("shop-1-b", true, "proxy", "vault")
	<-h.ended
	var p *api.Problem
	if !errors.As(h.err, &p) || p.Code != api.CodeNoLogs || p.Severity != api.SeverityWarning || !strings.Contains(p.Message, "get pods/log in namespace ns") ||
		!strings.Contains(p.Hint, `- {apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}`) || !strings.Contains(p.Hint, "fairlead rbac") {
		t.Errorf("%v %+v", h.err, p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams < 1 || s.streams > 2 {
		t.Errorf("%d streams: %v", s.streams, s.asked)
	}
}

// An init container that fails says why, though there is no environment yet.
func TestLinesOfAFailedStart(t *testing.T) {
	s, e := newLogServer(t)
	s.run("shop-1-a", false, "migrate:init", installContainer+":init")
	s.write("shop-1-a", "migrate", stamped{day, "no such table"})
	s.write("shop-1-a", installContainer, stamped{day, "quiet"})
	s.end("shop-1-a", "migrate")
	why := &api.Problem{Code: "init-failed"}
	err := e.c.withLines(t.Context(), wants{namespace: "ns", name: "shop-1"}, why)
	var lines interface{ LogLines() []*api.LogEvent }
	var p *api.Problem
	if !errors.As(err, &p) || p != why || !errors.As(err, &lines) {
		t.Fatalf("%v", err)
	}
	if l := lines.LogLines(); len(l) != 1 || l[0].Text != "no such table" || l[0].Process != "shop-1-a/migrate" {
		t.Errorf("%+v", l)
	}
	s.deny = true
	if err := e.c.withLines(t.Context(), wants{namespace: "ns", name: "shop-1"}, why); err != error(why) {
		t.Errorf("without the right: %v", err)
	}
}

func FuzzLogReader(f *testing.F) {
	f.Add("2026-03-10T12:00:00.123456789Z hello\n2026-03-10T12:00:00.2Z \xff\r\nfailed to read\n2026-03-10T12:00:00Z end")
	f.Add("2026-03-10T12:00:00Z " + strings.Repeat("é", 20_000) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := newLogReader(strings.NewReader(text))
		for n := 0; ; n++ {
			l, err := r.next()
			if len(l.text) > 3*(16<<10) || !utf8.ValidString(l.text) || strings.Contains(l.text, "\n") || n > len(text) {
				t.Fatalf("%q", l.text)
			}
			if err != nil {
				return
			}
		}
	})
}

// Lines are known again also where some with the oldest time that is known have been forgotten.
func TestRecentAgain(t *testing.T) {
	var r recent
	for i := range int64(recentLines + 2) {
		r.add(1_000 + i/4) // four lines have one time
	}
	a := r.again()
	for i := range int64(recentLines + 2) {
		if at := 1_000 + i/4; !a.has(logLine{at: at}) {
			t.Fatalf("line %d, of %d, is taken for a new one", i, at)
		}
	}
	if a.has(logLine{at: 1_000_000}) {
		t.Error("a new line is taken for a known one")
	}
}
