// Package janitor puts unused environments on Kubernetes to sleep, and deletes those that sleep for long, whoever made
// them and wherever their agents are. Run does it in the cluster, for ever; Pass does it once, from anywhere.
//
// What is due says package lease. What a janitor knows may be old, and two may work at once: each act names UID and
// resource version of the object that was decided on, so a use in between makes it fail, and the newer object is decided
// again. A janitor has no state: one that is killed in the middle of a deletion leaves what the next finds, and goes on
// with, from the objects alone.
package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Options say what a janitor looks after.
type Options struct {
	Cluster *kube.Cluster
	// Namespace is the only one that is looked at; empty means all.
	Namespace string
	// Fallback is the policy of environments that say none; the zero value is lease.DefaultPolicy.
	Fallback *lease.Policy
	// RecordNamespace keeps the record of what went with its namespace; without it only the log has it.
	RecordNamespace string
	// By names the janitor in that record.
	By string
	// DryRun decides and changes nothing.
	DryRun bool
	// Began is told of each act when it begins, from several goroutines; may be nil.
	Began  func(*Finding)
	Logger *slog.Logger

	// For tests: the only namespaces that are touched; another clock; what happens between a decision and its act (a step is "sleep", "copies", "delete", "recorded"
	// or "removed"); and a Run that has begun.
	only    func(ns string) bool
	now     func() (time.Time, error)
	step    func(name string, d *appsv1.Deployment)
	started func(*running)
}

// Janitor looks after environments.
type Janitor struct {
	o Options

	mu         sync.Mutex
	warned     map[types.UID]string // what was told of each environment last
	mayNotWarn bool
}

// New makes a janitor.
func New(o Options) *Janitor {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fallback == nil {
		o.Fallback = &lease.DefaultPolicy
	}
	if o.By == "" {
		o.By = "janitor"
	}
	if o.now == nil {
		o.now = o.Cluster.Clock().Now
	}
	if o.only == nil {
		o.only = func(string) bool { return true }
	}
	if o.Began == nil {
		o.Began = func(*Finding) {}
	}
	if o.step == nil {
		o.step = func(string, *appsv1.Deployment) {}
	}
	if o.started == nil {
		o.started = func(*running) {}
	}
	return &Janitor{o: o, warned: map[types.UID]string{}}
}

const (
	// removeLimit bounds the wait for a deletion. It goes on in the cluster all the same.
	removeLimit = 2 * time.Minute
	// quiet is how long a namespace of an environment stays when the environment is gone: the next one may just be being
	// made in it.
	quiet = 10 * time.Minute
	// slack is added before something is looked at again, since the API server's clock is read to the second.
	slack = time.Second
)

// Finding is one environment, or a namespace that one left, and what was decided and done.
type Finding struct {
	bridge.Stored
	LastUse  time.Time      `json:"last_use,omitzero"`
	Asleep   bool           `json:"asleep,omitempty"`
	Going    bool           `json:"going,omitempty"` // it is being deleted already
	Decision lease.Decision `json:"decision"`
	// Done: what was decided was done. Note says why not, or what is left.
	Done bool   `json:"done,omitempty"`
	Note string `json:"note,omitempty"`
	// Left: only the namespace is there any more.
	Left bool `json:"left,omitempty"`
	// Copies is what was done to the environment's fresh copies of dependencies, which sleep and wake with it.
	Copies string `json:"copies,omitempty"`

	settled     kube.Settled // Copies in figures
	conflict    bool
	interrupted bool
}

// acts says whether something is to be done.
func (f *Finding) acts() bool {
	return f.Decision.Action == lease.Sleep || f.Decision.Action == lease.Woken || f.Decision.Action == lease.Delete
}

// Find says what an environment's state is and what is due; nil if the Deployment is none.
func (j *Janitor) Find(d *appsv1.Deployment, now time.Time) *Finding {
	if !kube.IsEnvironment(d) {
		return nil
	}
	s := lease.Read(d, *j.o.Fallback)
	f := &Finding{Stored: j.o.Cluster.Stored(d), LastUse: s.LastUse, Asleep: s.Asleep, Going: d.DeletionTimestamp != nil, Decision: lease.Decide(s, now)}
	f.Created = s.Created // the server's word, not the laptop's
	if f.Going {
		f.Decision = lease.Decision{Action: lease.Keep, Why: "it is being deleted"}
	}
	return f
}

// deployment decides on an environment and does what is due. The error is one to try again after; a conflict is none,
// since the object that won is decided on by itself.
func (j *Janitor) deployment(ctx context.Context, d *appsv1.Deployment) (*Finding, error) {
	now, err := j.o.now()
	if err != nil {
		return nil, err
	}
	f := j.Find(d, now)
	if f == nil || j.o.DryRun {
		return f, nil
	}
	if f.acts() {
		j.o.Began(f)
	}
	switch f.Decision.Action {
	case lease.Sleep:
		j.o.step(string(f.Decision.Action), d)
		err = lease.PutToSleep(ctx, j.o.Cluster.Kube().AppsV1().Deployments(d.Namespace), d, now)
	case lease.Woken:
		err = lease.NoteWoken(ctx, j.o.Cluster.Kube().AppsV1().Deployments(d.Namespace), d)
	case lease.Delete:
		j.o.step(string(f.Decision.Action), d)
		err = j.remove(ctx, d, f, now)
	case lease.Warn:
		f.Note = j.warn(ctx, d, f, now)
		return f, nil
	default:
		return f, nil
	}
	switch {
	case err == nil:
		f.Done = true
		if f.Decision.Action == lease.Delete {
			j.mu.Lock()
			delete(j.warned, d.UID)
			j.mu.Unlock()
		}
	case apierrors.IsNotFound(err):
		f.Note = "it was gone already"
		err = nil
	case apierrors.IsConflict(err):
		f.Note, f.conflict = "it was used or changed meanwhile, and is left alone", true
		err = nil
	case ctx.Err() != nil:
		f.Note, f.interrupted = "interrupted", true
		err = nil
	default:
		f.Note = err.Error()
		err = j.o.Cluster.Explain(string(f.Decision.Action)+" environment "+d.Name, err)
	}
	j.o.Logger.Info("janitor", "act", f.Decision.Action, "done", f.Done, "namespace", d.Namespace, "environment", d.Name, "uid", d.UID,
		"owner", f.Owner, "last_use", f.LastUse, "why", f.Decision.Why, "note", f.Note)
	return f, err
}

// remove deletes an environment. That it goes is written down first: a janitor that is killed after the deletion would
// not know any more why.
func (j *Janitor) remove(ctx context.Context, d *appsv1.Deployment, f *Finding, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	at, err := j.recordPlace(ctx, d.Namespace)
	if err != nil {
		return err
	}
	rec := gone(d, f, now, j.o.By)
	if at != "" {
		if err := j.write(ctx, at, rec, now); err != nil {
			// The log has it. What is to go does not stay because it may not be written down why.
			j.o.Logger.Warn("janitor: the record of what goes was not written", "namespace", at, "error", err)
			f.Note = "why it went is not recorded: " + err.Error()
			at = ""
		}
	}
	j.o.step("recorded", d)
	err = j.o.Cluster.Remove(ctx, d)
	j.o.step("removed", d)
	if at != "" && apierrors.IsConflict(err) {
		if err := j.unwrite(ctx, at, rec); err != nil {
			j.o.Logger.Warn("janitor: the record of what did not go was not removed", "namespace", at, "error", err)
		}
	}
	return err
}

// namespace removes a namespace that was made for an environment that is gone. wait is when to look again; zero: not
// before something in it changes.
func (j *Janitor) namespace(ctx context.Context, n *corev1.Namespace, environments int) (f *Finding, wait time.Duration, err error) {
	name, opened, ok := kube.MadeNamespace(n)
	if !ok || environments > 0 || n.DeletionTimestamp != nil {
		return nil, 0, nil
	}
	now, err := j.o.now()
	if err != nil {
		return nil, 0, err
	}
	f = &Finding{Left: true, Decision: lease.Decision{Action: lease.Keep, At: opened.Add(quiet), Then: lease.Delete, Why: "its environment is gone, or is just being made"}}
	f.Name, f.Namespace, f.Created, f.LastUse = name, n.Name, n.CreationTimestamp.Time, opened
	if now.Before(f.Decision.At) {
		return f, f.Decision.At.Sub(now) + slack, nil
	}
	f.Decision = lease.Decision{Action: lease.Delete, Why: "its environment is gone"}
	if j.o.DryRun {
		return f, 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	f.Note, err = j.o.Cluster.RemoveNamespace(ctx, n)
	f.Done = err == nil && f.Note == ""
	if err != nil {
		f.Note = err.Error()
	}
	j.o.Logger.Info("janitor", "act", "delete namespace", "done", f.Done, "namespace", n.Name, "uid", n.UID, "why", f.Decision.Why, "note", f.Note)
	if !f.Done {
		wait = time.Hour // what is in it is somebody else's: that may change, without a word to us
	}
	return f, wait, err
}

// Pass decides on everything once and does what is due, several environments at a time: most of it is waiting for
// deletions. What it could not do is in the findings' notes; the error is that of not being able to look, or of having been
// interrupted.
func (j *Janitor) Pass(ctx context.Context, filter kube.Filter) (found []Finding, err error) {
	ds, in, err := j.o.Cluster.Environments(ctx, filter)
	if err != nil {
		return nil, err
	}
	copies, err := j.o.Cluster.Copies(ctx, in, filter.Name)
	if err != nil {
		return nil, err
	}
	of := copies.ByEnvironment()
	results, errs := make([]*Finding, len(ds)), make([]error, len(ds))
	parallel(len(ds), func(i int) {
		d := &ds[i]
		if ctx.Err() != nil {
			results[i] = j.left(d)
			return
		}
		f, err := j.newest(ctx, d)
		if f != nil && err == nil && !j.o.DryRun && (f.Done || of[kube.KeyOf(d)].Differ(d)) {
			err = j.settle(ctx, d, f)
		}
		if f != nil && f.Note == "" && f.Done && f.Decision.Action == lease.Sleep {
			f.Note = copies.Unseen
		}
		results[i], errs[i] = f, err
	})
	failed := errs
	there := map[string]int{}
	unfinished := 0
	for i, f := range results {
		if f != nil {
			found = append(found, *f)
			if f.interrupted {
				unfinished++
			}
		}
		if f == nil || !f.Done || f.Decision.Action != lease.Delete {
			there[ds[i].Namespace]++
		}
	}
	if ctx.Err() != nil {
		return found, errors.Join(append(failed, interruptedProblem(unfinished))...)
	}
	spaces, err := j.namespaces(ctx, in)
	if err != nil {
		return found, errors.Join(append(failed, err)...)
	}
	spaces = slices.DeleteFunc(spaces, func(n corev1.Namespace) bool { return in != "" && n.Name != in })
	results, errs = make([]*Finding, len(spaces)), make([]error, len(spaces))
	parallel(len(spaces), func(i int) {
		n := &spaces[i]
		// Counted anew: the listing of environments is older than that of the namespaces, and may have been filtered.
		environments := there[n.Name]
		if environments == 0 {
			l, err := j.o.Cluster.Kube().AppsV1().Deployments(n.Name).List(ctx, metav1.ListOptions{LabelSelector: kube.EnvironmentSelector, Limit: 1})
			if err != nil {
				errs[i] = j.o.Cluster.Explain("look into namespace "+n.Name, err)
				return
			}
			environments = len(l.Items)
		}
		results[i], _, errs[i] = j.namespace(ctx, n, environments)
	})
	for _, f := range results {
		if f != nil {
			found = append(found, *f)
		}
	}
	failed = append(failed, errs...)
	if ctx.Err() != nil {
		failed = append(failed, interruptedProblem(unfinished))
	}
	return found, errors.Join(failed...)
}

// parallel calls f for 0 to n-1, a few at a time.
func parallel(n int, f func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// left is what would have been done to an environment that an interrupted Pass did not come to.
func (j *Janitor) left(d *appsv1.Deployment) *Finding {
	now, err := j.o.now()
	if err != nil {
		return nil
	}
	f := j.Find(d, now)
	if f != nil && f.acts() {
		f.Note, f.interrupted = "not begun", true
	}
	return f
}

func interruptedProblem(unfinished int) error {
	return &api.Problem{Code: "interrupted", Message: fmt.Sprintf("interrupted: %d environments are left to do; a deletion that has begun goes on in the cluster", unfinished), Hint: "run it again: it goes on with what is left"}
}

// settle makes the fresh copies of an environment follow it, as it is by now.
func (j *Janitor) settle(ctx context.Context, d *appsv1.Deployment, f *Finding) error {
	if f.Decision.Action == lease.Delete && f.Done { // they go with it
		return nil
	}
	cl := j.o.Cluster
	for range recordTries {
		have, err := cl.Copies(ctx, d.Namespace, d.Name)
		if err != nil {
			return err
		}
		now, err := cl.Kube().AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return cl.Explain("look at environment "+d.Name, err)
		}
		if !have.Differ(now) {
			return nil
		}
		if err := j.copies(ctx, now, have, f); err != nil {
			return err
		}
	}
	return nil // others change them all the time; the next pass looks again
}

// copies makes those copies follow their environment that are still as they were read.
func (j *Janitor) copies(ctx context.Context, d *appsv1.Deployment, have kube.Copies, f *Finding) error {
	j.o.step("copies", d)
	did, err := j.o.Cluster.SettleCopies(ctx, d, have)
	if did != (kube.Settled{}) {
		f.settled.Slept += did.Slept
		f.settled.Woken += did.Woken
		f.Copies = f.settled.String()
		j.o.Logger.Info("janitor", "act", "copies", "done", err == nil, "namespace", d.Namespace, "environment", d.Name, "uid", d.UID, "note", did.String())
	}
	return err
}

// newest decides on an environment again where it changed meanwhile. A watch would bring the newer object by itself.
func (j *Janitor) newest(ctx context.Context, d *appsv1.Deployment) (f *Finding, err error) {
	for range recordTries {
		f, err = j.deployment(ctx, d)
		if f == nil || err != nil || !f.conflict {
			break
		}
		again, err := j.o.Cluster.Kube().AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && again.UID != d.UID:
			f.Note = "it was gone already"
			return f, nil
		case err != nil:
			return f, j.o.Cluster.Explain("look at environment "+d.Name, err)
		}
		d = again
	}
	return f, err
}

// namespaces lists those that carry our label: all, or one and those that are like it. Who may not see them has made none.
func (j *Janitor) namespaces(ctx context.Context, in string) (out []corev1.Namespace, err error) {
	spaces := j.o.Cluster.Kube().CoreV1().Namespaces()
	selector := kube.EnvironmentSelector
	if in != "" {
		selector = kube.IsolatedSelector(in)
		n, err := spaces.Get(ctx, in, metav1.GetOptions{})
		if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
			return nil, j.o.Cluster.Explain("look at namespace "+in, err)
		}
		if err == nil {
			out = append(out, *n)
		}
	}
	l, err := spaces.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if apierrors.IsForbidden(err) {
		return out, nil
	}
	if err != nil {
		return nil, j.o.Cluster.Explain("look for namespaces of environments", err)
	}
	return append(out, l.Items...), nil
}

// next is how long until an environment is to be looked at again; zero: not before it changes.
func (f *Finding) next(now time.Time) time.Duration {
	if f.Decision.At.IsZero() {
		return 0
	}
	return max(f.Decision.At.Sub(now), 0) + slack
}
