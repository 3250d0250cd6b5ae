package janitor

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/lease"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// The names that bridge/kube gives.
const (
	labelEnvironment = kube.EnvironmentSelector
	annShape         = "fairlead.dev/shape"
	annMadeFor       = "fairlead.dev/made-for"
)

// real is the test cluster, with a namespace of the test's own.
type real struct {
	*kube.Cluster
	kc kubernetes.Interface
	ns string
}

func kubeconfig(t testing.TB) string {
	t.Helper()
	file := os.Getenv("FAIRLEAD_TEST_KUBECONFIG")
	if file == "" {
		const why = "FAIRLEAD_TEST_KUBECONFIG does not name a cluster (test/cluster makes one)"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	return file
}

func realCluster(t testing.TB) *real {
	t.Helper()
	file := kubeconfig(t)
	cl, err := kube.Connect(kube.Options{Kubeconfig: file})
	if err != nil {
		t.Fatal(err)
	}
	n, err := cl.Kube().CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "janitor-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Kube().CoreV1().Namespaces().Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	// A connection that looks at this namespace alone: other tests have environments of their own.
	if cl, err = kube.Connect(kube.Options{Kubeconfig: file, Namespace: n.Name}); err != nil {
		t.Fatal(err)
	}
	return &real{cl, cl.Kube(), n.Name}
}

// draw is an environment as kube.Open makes one, but paused, so that it never has a pod.
func draw(name string) *appsv1.Deployment {
	l := map[string]string{labelEnvironment: name, "fairlead.dev/service": "svc", "fairlead.dev/owner": "0011"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: l, Annotations: map[string]string{annShape: "00", "fairlead.dev/owner": "ann@desk"}},
		Spec: appsv1.DeploymentSpec{Paused: true, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{labelEnvironment: name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}}}}}
}

func (r *real) create(t testing.TB, ns string, d *appsv1.Deployment) *appsv1.Deployment {
	t.Helper()
	d, err := r.kc.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{FieldManager: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// environment makes one in a namespace, with its Secret.
func (r *real) environment(t testing.TB, ns, name string, p lease.Policy) *appsv1.Deployment {
	t.Helper()
	d, err := lease.Record(t.Context(), r.kc.AppsV1().Deployments(ns), r.create(t, ns, draw(name)), &p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.kc.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-token",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: d.UID}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (r *real) get(t testing.TB, ns, name string) *appsv1.Deployment {
	t.Helper()
	d, err := r.kc.AppsV1().Deployments(ns).Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// later is a janitor whose clock is ahead of the API server's.
func (r *real) later(d time.Duration, edit func(*Options)) *Janitor {
	o := Options{Cluster: r.Cluster, Namespace: r.ns, now: ahead(r.Cluster, d)}
	if edit != nil {
		edit(&o)
	}
	return New(o)
}

func ahead(cl *kube.Cluster, d time.Duration) func() (time.Time, error) {
	return func() (time.Time, error) {
		now, err := cl.Clock().Now()
		return now.Add(d), err
	}
}

// pass is what one says of an environment.
func pass(t testing.TB, j *Janitor, name string) Finding {
	t.Helper()
	found, err := j.Pass(t.Context(), kube.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Name == name {
			return f
		}
	}
	return Finding{}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func TestClusterStages(t *testing.T) {
	r := realCluster(t)
	policy := lease.Policy{Sleep: time.Hour, Delete: 2 * time.Hour}
	d := r.environment(t, r.ns, "x", policy)
	forever := r.environment(t, r.ns, "y", policy)
	if err := lease.SetKeep(t.Context(), r.kc.AppsV1().Deployments(r.ns), "y", forever.UID, time.Now().Add(240*time.Hour)); err != nil {
		t.Fatal(err)
	}
	dry := func(o *Options) { o.DryRun = true }
	for _, s := range []struct {
		after    time.Duration
		edit     func(*Options)
		want     lease.Action
		done     bool
		replicas int32
	}{
		{0, nil, lease.Keep, false, 1},
		{55 * time.Minute, nil, lease.Warn, false, 1},
		{62 * time.Minute, dry, lease.Sleep, false, 1},
		{62 * time.Minute, nil, lease.Sleep, true, 0},
		{63 * time.Minute, nil, lease.Keep, false, 0},
		{62*time.Minute + 115*time.Minute, nil, lease.Warn, false, 0},
		{62*time.Minute + 121*time.Minute, dry, lease.Delete, false, 0},
	} {
		f := pass(t, r.later(s.after, s.edit), "x")
		if f.Decision.Action != s.want || f.Done != s.done || f.Owner != "ann@desk" {
			t.Fatalf("after %v: %+v", s.after, f)
		}
		if is := *r.get(t, r.ns, "x").Spec.Replicas; is != s.replicas {
			t.Fatalf("after %v: %d replicas", s.after, is)
		}
	}
	j := r.later(62*time.Minute+121*time.Minute, func(o *Options) { o.By = "test" })
	f := pass(t, j, "x")
	if f.Decision.Action != lease.Delete || !f.Done || f.Note != "" {
		t.Fatalf("%+v", f)
	}
	if r.get(t, r.ns, "x") != nil {
		t.Error("it is still there")
	}
	eventually(t, "its Secret to go", func() bool {
		_, err := r.kc.CoreV1().Secrets(r.ns).Get(t.Context(), "x-token", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	gone, err := j.Gone(t.Context(), r.ns)
	if err != nil || len(gone) != 1 {
		t.Fatalf("%+v, %v", gone, err)
	}
	if g := gone[0]; g.Name != "x" || g.UID != d.UID || g.Owner != "ann@desk" || g.Service != "svc" || g.By != "test" || !strings.HasPrefix(g.Why, "asleep since") || g.LastUse.IsZero() {
		t.Errorf("%+v", g)
	}
	if is := r.get(t, r.ns, "y"); is == nil || *is.Spec.Replicas != 1 {
		t.Error("what is kept was touched")
	}
}

// A use between the decision and the act wins, whatever the act is.
func TestClusterUseWinsTheRace(t *testing.T) {
	r := realCluster(t)
	ds := r.kc.AppsV1().Deployments(r.ns)
	for _, act := range []lease.Action{lease.Sleep, lease.Delete} {
		name := string(act)
		d := r.environment(t, r.ns, name, lease.Policy{Sleep: time.Hour, Delete: time.Hour})
		if act == lease.Delete {
			if f := pass(t, r.later(2*time.Hour, nil), name); !f.Done {
				t.Fatalf("%+v", f)
			}
		}
		used := false
		j := r.later(4*time.Hour, func(o *Options) {
			o.step = func(step string, is *appsv1.Deployment) {
				if is.Name != name || step != name && step != "recorded" || used && step == name {
					return
				}
				// Used, and kept: by this clock the use alone is hours ago.
				used = true
				if err := lease.Renew(t.Context(), ds, name, d.UID, "a save"); err != nil {
					t.Error(err)
				}
				if err := lease.SetKeep(t.Context(), ds, name, d.UID, time.Now().Add(240*time.Hour)); err != nil {
					t.Error(err)
				}
			}
		})
		f := pass(t, j, name)
		if !used || f.Done || f.Decision.Action != lease.Keep || !strings.HasPrefix(f.Decision.Why, "it is kept until") {
			t.Errorf("%s: used %v; %+v", act, used, f)
		}
		if is := r.get(t, r.ns, name); is == nil || is.DeletionTimestamp != nil || act == lease.Sleep && *is.Spec.Replicas != 1 {
			t.Errorf("%s: it won over a use: %+v", act, is)
		}
		if gone, err := j.Gone(t.Context(), r.ns); err != nil || len(gone) != 0 {
			t.Errorf("%s: recorded as gone: %+v, %v", act, gone, err)
		}
	}
}

// stranger is what is none of ours, and must stay exactly as it is.
type stranger struct {
	UID         string
	Generation  int64
	Labels      map[string]string
	Annotations map[string]string
}

// strangers makes Deployments that only look like environments: a copy with everything but the UID, one that was never
// recorded, one whose name is another's, and one with nothing.
func (r *real) strangers(t testing.TB) (look func() map[string]stranger) {
	t.Helper()
	original := r.environment(t, r.ns, "original", lease.Policy{Sleep: time.Second, Delete: time.Second})
	if err := lease.SetKeep(t.Context(), r.kc.AppsV1().Deployments(r.ns), "original", original.UID, time.Now().Add(24000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	other := draw("copied")
	other.Annotations = original.Annotations
	r.create(t, r.ns, other)
	r.create(t, r.ns, draw("unrecorded"))
	named := draw("named")
	named.Labels = map[string]string{labelEnvironment: "original"}
	r.create(t, r.ns, named)
	plain := draw("plain")
	plain.Labels, plain.Annotations = nil, nil
	r.create(t, r.ns, plain)
	names := []string{"copied", "unrecorded", "named", "plain"}
	if _, err := r.kc.AppsV1().Deployments(r.ns).Patch(t.Context(), "unrecorded", "application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	return func() map[string]stranger {
		all := map[string]stranger{}
		for _, n := range names {
			if d := r.get(t, r.ns, n); d != nil {
				all[n] = stranger{string(d.UID), d.Generation, d.Labels, d.Annotations}
			}
		}
		return all
	}
}

func TestClusterStrangersAreLeftAlone(t *testing.T) {
	r := realCluster(t)
	look := r.strangers(t)
	before := look()
	if len(before) != 4 {
		t.Fatalf("%d strangers", len(before))
	}
	for range 2 {
		found, err := r.later(10000*time.Hour, nil).Pass(t.Context(), kube.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Done || f.Name == "unrecorded" && !strings.Contains(f.Decision.Why, "may not have made it") || f.Name == "copied" || f.Name == "named" || f.Name == "plain" {
				t.Errorf("%+v", f)
			}
		}
	}
	if d := cmp.Diff(before, look()); d != "" {
		t.Errorf("strangers were changed: %s", d)
	}
}

// ownNamespace makes a namespace as kube.Open does for an environment.
func (r *real) ownNamespace(t *testing.T, environment string) *corev1.Namespace {
	t.Helper()
	spaces := r.kc.CoreV1().Namespaces()
	n, err := spaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "janitor-own-", Labels: map[string]string{labelEnvironment: environment},
		Annotations: map[string]string{annMadeFor: environment}}}, metav1.CreateOptions{FieldManager: "fairlead"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := spaces.Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	n, err = spaces.Patch(t.Context(), n.Name, "application/merge-patch+json", []byte(fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, lease.MadeUID, n.UID)), metav1.PatchOptions{FieldManager: "fairlead"})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A janitor that is killed at any step leaves what the next one ends.
func TestClusterKilledInTheMiddle(t *testing.T) {
	r := realCluster(t)
	for _, step := range []string{"sleep", "delete", "recorded", "waiting", "removed"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			n := r.ownNamespace(t, "x")
			d := r.environment(t, n.Name, "x", lease.Policy{Sleep: time.Hour, Delete: time.Hour})
			ds := r.kc.AppsV1().Deployments(n.Name)
			in := func(d time.Duration) *Janitor {
				cl, err := kube.Connect(kube.Options{Kubeconfig: kubeconfig(t), Namespace: n.Name})
				if err != nil {
					t.Fatal(err)
				}
				return New(Options{Cluster: cl, Namespace: n.Name, RecordNamespace: r.ns, now: ahead(cl, d)})
			}
			if step != "sleep" {
				if f := pass(t, in(2*time.Hour), "x"); !f.Done {
					t.Fatalf("%+v", f)
				}
			}
			if step == "waiting" { // something holds it, so that the deletion takes time
				if _, err := ds.Patch(t.Context(), "x", "application/merge-patch+json", []byte(`{"metadata":{"finalizers":["example.test/hold"]}}`), metav1.PatchOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			killAt(t, "pass", "step "+step, "NAMESPACE="+n.Name, "RECORDS="+r.ns, "STEP="+step)
			if step == "waiting" {
				if is := r.get(t, n.Name, "x"); is == nil || is.DeletionTimestamp == nil {
					t.Errorf("it was not being deleted: %+v", is)
				}
				eventually(t, "what held it to let go", func() bool {
					is := r.get(t, n.Name, "x")
					is.Finalizers = slices.DeleteFunc(is.Finalizers, func(f string) bool { return f == "example.test/hold" })
					_, err := ds.Update(t.Context(), is, metav1.UpdateOptions{})
					if err != nil && !apierrors.IsConflict(err) {
						t.Fatal(err)
					}
					return err == nil
				})
			}
			eventually(t, "the next janitor to end it", func() bool {
				for _, at := range []time.Duration{10 * time.Hour, 20 * time.Hour} { // asleep, then gone
					if _, err := in(at).Pass(t.Context(), kube.Filter{}); err != nil {
						t.Fatal(err)
					}
				}
				_, err := r.kc.CoreV1().Namespaces().Get(t.Context(), n.Name, metav1.GetOptions{})
				return apierrors.IsNotFound(err)
			})
			gone, err := in(0).Gone(t.Context(), r.ns)
			if err != nil {
				t.Fatal(err)
			}
			var of []Gone
			for _, g := range gone {
				if g.UID == d.UID {
					of = append(of, g)
				}
			}
			if len(of) != 1 || of[0].Namespace != n.Name || of[0].Why == "" {
				t.Errorf("why it went: %+v", of)
			}
		})
	}
}

// killAt runs this test's executable as a janitor of its own, waits until it says something, and kills it.
func killAt(t *testing.T, what, says string, env ...string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestProcess$")
	cmd.Env = append(os.Environ(), "FAIRLEAD_TEST_PROCESS="+what)
	for _, kv := range env {
		cmd.Env = append(cmd.Env, "FAIRLEAD_TEST_"+kv)
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if said = append(said, lines.Text()); lines.Text() == says {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil { // SIGKILL
		t.Error(err)
	}
	cmd.Wait()
	if len(said) == 0 || said[len(said)-1] != says {
		t.Fatalf("it never said %q, but %q", says, said)
	}
}

// TestProcess is a janitor in a process of its own, for the tests that kill it.
func TestProcess(t *testing.T) {
	what := os.Getenv("FAIRLEAD_TEST_PROCESS")
	if what == "" {
		return // it is run by the others
	}
	ns, step := os.Getenv("FAIRLEAD_TEST_NAMESPACE"), os.Getenv("FAIRLEAD_TEST_STEP")
	stop := func(is string) {
		if is == step {
			fmt.Println("step " + is)
			<-t.Context().Done() // until it is killed
			select {}
		}
	}
	cl, err := kube.Connect(kube.Options{Kubeconfig: kubeconfig(t), Namespace: ns, Progress: func(m string) {
		if m == "waiting for the pod to end" {
			stop("waiting")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := Options{Cluster: cl, Namespace: ns, RecordNamespace: os.Getenv("FAIRLEAD_TEST_RECORDS"), now: ahead(cl, 4*time.Hour), step: func(s string, _ *appsv1.Deployment) { stop(s) }}
	switch what {
	case "pass":
		if _, err := New(o).Pass(t.Context(), kube.Filter{}); err != nil {
			t.Fatal(err)
		}
	case "leader":
		o.now = nil
		o.Logger = slog.New(slog.NewTextHandler(saysLeading{}, nil))
		if err := Elect(t.Context(), New(o), Election{Namespace: ns, Name: "janitor", Identity: "first", TTL: 4 * time.Second}, log); err != nil {
			t.Fatal(err)
		}
	}
}

// saysLeading tells the parent that the janitor is at work, by its log.
type saysLeading struct{}

func (saysLeading) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "at work") {
		fmt.Println("leads")
	}
	return len(b), nil
}

// The leader is killed; the other takes over, and does what is due.
func TestClusterElection(t *testing.T) {
	r := realCluster(t)
	killAt(t, "leader", "leads", "NAMESPACE="+r.ns)
	l, err := r.kc.CoordinationV1().Leases(r.ns).Get(t.Context(), "janitor", metav1.GetOptions{})
	if err != nil || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != "first" {
		t.Fatalf("%+v, %v", l, err)
	}
	r.environment(t, r.ns, "x", lease.Policy{Sleep: time.Second, Delete: time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() {
			j := New(Options{Cluster: r.Cluster, Namespace: r.ns})
			errs[i] = Elect(ctx, j, Election{Namespace: r.ns, Name: "janitor", Identity: fmt.Sprint("other-", i), TTL: 4 * time.Second}, slog.New(slog.DiscardHandler))
		})
	}
	eventually(t, "another to take over", func() bool { return r.get(t, r.ns, "x") == nil })
	l, err = r.kc.CoordinationV1().Leases(r.ns).Get(t.Context(), "janitor", metav1.GetOptions{})
	if err != nil || !strings.HasPrefix(*l.Spec.HolderIdentity, "other-") {
		t.Errorf("%+v, %v", l, err)
	}
	cancel()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Errorf("a janitor that was asked to end: %v", err)
		}
	}
	// It lets go of the lead, so that the next one needs not wait.
	if l, err = r.kc.CoordinationV1().Leases(r.ns).Get(t.Context(), "janitor", metav1.GetOptions{}); err != nil || l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
		t.Errorf("%+v, %v", l, err)
	}
}

func d4(i int) types.UID { return types.UID(fmt.Sprintf("uid-%04d", i)) }

// The record keeps what is young, drops what is old, and is bounded; an entry of somebody else's in it is left alone.
func TestClusterRecord(t *testing.T) {
	r := realCluster(t)
	j := r.later(0, nil)
	now := time.Now()
	entry := func(i int, age time.Duration) Gone {
		return Gone{Name: "x", Namespace: r.ns, UID: d4(i), At: now.Add(-age), Why: "asleep"}
	}
	if err := j.write(t.Context(), r.ns, entry(0, 8*24*time.Hour), now); err != nil {
		t.Fatal(err)
	}
	data := map[string]string{"note": "somebody's"}
	for i := 1; i <= recordMost+5; i++ {
		data[string(d4(i))] = fmt.Sprintf(`{"name":"x","namespace":"n","uid":%q,"at":%q,"why":"w","by":"b"}`, d4(i), now.Add(-time.Duration(i)*time.Second).Format(time.RFC3339))
	}
	cm, err := r.kc.CoreV1().ConfigMaps(r.ns).Get(t.Context(), recordName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range cm.Data {
		data[k] = v
	}
	cm.Data = data
	if _, err := r.kc.CoreV1().ConfigMaps(r.ns).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice is once
		if err := j.write(t.Context(), r.ns, entry(9999, 0), now); err != nil {
			t.Fatal(err)
		}
	}
	gone, err := j.Gone(t.Context(), r.ns)
	if err != nil || len(gone) != recordMost || gone[0].UID != d4(9999) || slices.ContainsFunc(gone, func(g Gone) bool { return g.UID == d4(0) }) {
		t.Errorf("%d entries, %v", len(gone), err)
	}
	cm, err = r.kc.CoreV1().ConfigMaps(r.ns).Get(t.Context(), recordName, metav1.GetOptions{})
	if err != nil || cm.Data["note"] != "somebody's" {
		t.Errorf("%v", err)
	}
	// A ConfigMap of that name that is not ours is not written to.
	cm.Labels = nil
	if cm, err = r.kc.CoreV1().ConfigMaps(r.ns).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := j.write(t.Context(), r.ns, entry(5, 0), now); err == nil || !strings.Contains(err.Error(), "somebody else's") {
		t.Errorf("%v", err)
	}
}

// lines is a log handler that calls a function with each message.
type lines func(string)

func (l lines) Enabled(context.Context, slog.Level) bool      { return true }
func (l lines) Handle(_ context.Context, r slog.Record) error { l(r.Message); return nil }
func (l lines) WithAttrs([]slog.Attr) slog.Handler            { return l }
func (l lines) WithGroup(string) slog.Handler                 { return l }
func logTo(f func(message string)) *slog.Logger               { return slog.New(lines(f)) }

// By the watch alone: an environment sleeps, goes, and its own namespace after it, and one that is filled with something
// of somebody else's stays.
func TestClusterRunOverAllNamespaces(t *testing.T) {
	r := realCluster(t)
	mine, theirs := r.ownNamespace(t, "x"), r.ownNamespace(t, "x")
	for _, n := range []string{mine.Name, theirs.Name} {
		r.environment(t, n, "x", lease.Policy{Sleep: time.Hour, Delete: time.Second})
	}
	if _, err := r.kc.CoreV1().ConfigMaps(theirs.Name).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cl, err := kube.Connect(kube.Options{Kubeconfig: kubeconfig(t)})
	if err != nil {
		t.Fatal(err)
	}
	j := New(Options{Cluster: cl, now: ahead(cl, 10*time.Hour), only: func(ns string) bool { return ns == mine.Name || ns == theirs.Name }})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	eventually(t, "the environment and its namespace to go", func() bool {
		_, err := r.kc.CoreV1().Namespaces().Get(t.Context(), mine.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	eventually(t, "the other environment to go", func() bool { return r.get(t, theirs.Name, "x") == nil })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	n, err := r.kc.CoreV1().Namespaces().Get(t.Context(), theirs.Name, metav1.GetOptions{})
	if err != nil || n.DeletionTimestamp != nil {
		t.Errorf("a namespace with something of somebody else's: %v, %v", n.DeletionTimestamp, err)
	}
}

// A namespace in which an environment is just being made is not deleted, whatever was decided before.
func TestClusterNamespaceThatIsUsed(t *testing.T) {
	r := realCluster(t)
	n := r.ownNamespace(t, "x")
	j := r.later(10*time.Hour, nil)
	touched, err := r.kc.CoreV1().Namespaces().Patch(t.Context(), n.Name, "application/merge-patch+json", []byte(`{"metadata":{"annotations":{"fairlead.dev/opened":"now"}}}`), metav1.PatchOptions{FieldManager: "fairlead"})
	if err != nil {
		t.Fatal(err)
	}
	f, wait, err := j.namespace(t.Context(), n, 0)
	if err != nil || f == nil || f.Done || !strings.Contains(f.Note, "it was just used") || wait == 0 {
		t.Errorf("%+v, %v, %v", f, wait, err)
	}
	if f, wait, err := r.later(0, nil).namespace(t.Context(), touched, 0); err != nil || f.Decision.Action != lease.Keep || wait < 9*time.Minute || wait > quiet+slack {
		t.Errorf("%+v, %v, %v", f, wait, err)
	}
	if f, _, err := j.namespace(t.Context(), touched, 1); err != nil || f != nil {
		t.Errorf("with an environment in it: %+v, %v", f, err)
	}
	if f, _, err := j.namespace(t.Context(), touched, 0); err != nil || !f.Done {
		t.Errorf("%+v, %v", f, err)
	}
}
