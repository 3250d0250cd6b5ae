package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// fakeCluster is an API server with a controller that makes a running pod of each Deployment that is an environment.
type fakeCluster struct {
	*fake.Clientset
	c    *client
	deny func(verb, resource string) bool

	mu   sync.Mutex
	said []string
}

func newFake(t *testing.T, objects ...runtime.Object) *fakeCluster {
	t.Helper()
	set := fake.NewClientset(objects...)
	f := &fakeCluster{Clientset: set, c: &client{kube: set, context: "test", server: "https://api.test"}}
	uids := 0
	set.PrependReactor("create", "namespaces", func(a ktesting.Action) (bool, runtime.Object, error) {
		uids++
		a.(ktesting.CreateAction).GetObject().(*corev1.Namespace).UID = types.UID(fmt.Sprint("uid-", uids))
		return false, nil, nil
	})
	set.PrependReactor("create", "selfsubjectaccessreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		r := a.(ktesting.CreateAction).GetObject().(*authv1.SelfSubjectAccessReview)
		at := r.Spec.ResourceAttributes
		res := at.Resource
		if at.Subresource != "" {
			res += "/" + at.Subresource
		}
		r.Status.Allowed = f.deny == nil || !f.deny(at.Verb, res)
		return true, r, nil
	})
	set.PrependReactor("*", "*", func(a ktesting.Action) (bool, runtime.Object, error) {
		r := a.GetResource()
		if f.deny != nil && r.Resource != "selfsubjectaccessreviews" && f.deny(a.GetVerb(), r.Resource) {
			return true, nil, apierrors.NewForbidden(r.GroupResource(), "", fmt.Errorf("User %q cannot %s resource %q in API group %q in the namespace %q", "u", a.GetVerb(), r.Resource, r.Group, a.GetNamespace()))
		}
		return false, nil, nil
	})
	// The fake forgets what happens between a list and a watch; an API server does not.
	set.PrependWatchReactor("*", func(a ktesting.Action) (bool, watch.Interface, error) {
		gvr := a.GetResource()
		in, err := set.Tracker().Watch(gvr, a.GetNamespace())
		if err != nil {
			return true, nil, err
		}
		out := watch.NewRaceFreeFake()
		kind := map[string]schema.GroupVersionKind{"pods": corev1.SchemeGroupVersion.WithKind("Pod"), "deployments": appsv1.SchemeGroupVersion.WithKind("Deployment"), "namespaces": corev1.SchemeGroupVersion.WithKind("Namespace")}[gvr.Resource]
		none := true
		if l, err := set.Tracker().List(gvr, kind, a.GetNamespace()); err == nil {
			eachObject(l, func(o runtime.Object) { out.Modify(o); none = false })
		}
		if none { // what was deleted cannot be told after the fact: the watcher must look again
			out.Error(&metav1.Status{Reason: metav1.StatusReasonExpired})
		}
		go func() {
			defer in.Stop()
			for {
				select {
				case e, ok := <-in.ResultChan():
					if !ok {
						return
					}
					out.Action(e.Type, e.Object)
				case <-t.Context().Done():
					return
				}
			}
		}()
		return true, out, nil
	})
	addresses := 0
	set.PrependReactor("create", "services", func(a ktesting.Action) (bool, runtime.Object, error) {
		addresses++
		a.(ktesting.CreateAction).GetObject().(*corev1.Service).Spec.ClusterIP = fmt.Sprint("10.0.0.", addresses)
		return false, nil, nil
	})
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	// A copy's pod is ready at once, and a seed has done its work.
	ready := func(a ktesting.Action) (bool, runtime.Object, error) {
		o := a.(ktesting.CreateAction).GetObject() // an update's has the same method
		var tmpl *corev1.PodTemplateSpec
		switch o := o.(type) {
		case *appsv1.Deployment:
			tmpl = &o.Spec.Template
		case *appsv1.StatefulSet:
			tmpl = &o.Spec.Template
		case *batchv1.Job:
			o.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
			return false, nil, nil
		}
		if tmpl.Labels[dependency.LabelOf] != "" {
			addresses++
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: a.GetNamespace(), Name: fmt.Sprint("copy-", addresses), Labels: tmpl.Labels, Annotations: tmpl.Annotations},
				Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
			if err := set.Tracker().Create(pods, p, a.GetNamespace()); err != nil {
				return true, nil, err
			}
		}
		return false, nil, nil
	}
	ended := func(a ktesting.Action) (bool, runtime.Object, error) {
		o, err := set.Tracker().Get(a.GetResource(), a.GetNamespace(), a.(ktesting.DeleteAction).GetName())
		if err != nil {
			return false, nil, nil
		}
		name := o.(metav1.Object).GetLabels()[dependency.LabelName]
		if l, err := set.Tracker().List(pods, corev1.SchemeGroupVersion.WithKind("Pod"), a.GetNamespace()); err == nil && name != "" {
			for _, p := range l.(*corev1.PodList).Items {
				if p.Labels[dependency.LabelName] == name {
					set.Tracker().Delete(pods, p.Namespace, p.Name)
				}
			}
		}
		return false, nil, nil
	}
	set.PrependReactor("delete", "deployments", ended)
	set.PrependReactor("delete", "statefulsets", ended)
	for _, resource := range []string{"deployments", "statefulsets", "jobs"} {
		set.PrependReactor("create", resource, ready)
		set.PrependReactor("update", resource, ready)
	}
	f.runController(t)
	return f
}

func eachObject(l runtime.Object, f func(runtime.Object)) {
	switch l := l.(type) {
	case *corev1.PodList:
		for i := range l.Items {
			f(&l.Items[i])
		}
	case *appsv1.DeploymentList:
		for i := range l.Items {
			f(&l.Items[i])
		}
	case *corev1.NamespaceList:
		for i := range l.Items {
			f(&l.Items[i])
		}
	}
}

// runController makes and removes pods. It works on the tracker, so that its actions are not counted as ours.
func (f *fakeCluster) runController(t *testing.T) {
	deps, pods := appsv1.SchemeGroupVersion.WithResource("deployments"), corev1.SchemeGroupVersion.WithResource("pods")
	tr := f.Tracker()
	w, err := tr.Watch(deps, "")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	go func() {
		defer w.Stop()
		for {
			var e watch.Event
			select {
			case e = <-w.ResultChan():
			case <-t.Context().Done():
				return
			}
			d, ok := e.Object.(*appsv1.Deployment)
			if !ok || d.Labels[labelEnvironment] == "" {
				continue
			}
			if l, err := tr.List(pods, corev1.SchemeGroupVersion.WithKind("Pod"), d.Namespace); err == nil {
				for _, p := range l.(*corev1.PodList).Items {
					if p.Labels[labelEnvironment] == d.Name && (e.Type == watch.Deleted || p.Annotations[annShape] != d.Annotations[annShape]) {
						tr.Delete(pods, p.Namespace, p.Name)
					}
				}
			}
			if e.Type == watch.Deleted {
				continue
			}
			n++
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: fmt.Sprintf("%s-%d", d.Name, n), Labels: d.Spec.Template.Labels, Annotations: d.Spec.Template.Annotations}, Spec: d.Spec.Template.Spec}
			p.Spec.NodeName = "node"
			for _, c := range p.Spec.Containers {
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
			}
			tr.Create(pods, p, d.Namespace)
		}
	}()
}

func (f *fakeCluster) options(t *testing.T) Options {
	address, _ := testRegistry(t)
	return Options{Registry: address, Namespace: "shop", Payload: fakePayload, Progress: func(m string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.said = append(f.said, m)
	}}.withDefaults()
}

func (f *fakeCluster) progress() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.said, "\n")
}

// changes are the actions that are not only questions.
func (f *fakeCluster) changes() (out []string) {
	for _, a := range f.Actions() {
		if v := a.GetVerb(); v != "get" && v != "list" && v != "watch" && a.GetResource().Resource != "selfsubjectaccessreviews" {
			out = append(out, v+" "+a.GetResource().Resource)
		}
	}
	return out
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)}}
}

func TestOpenResumeDelete(t *testing.T) {
	ctx := soon(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{Architecture: "arm64"}}}
	f := newFake(t, staging(t), namespace("shop"), node)
	o := f.options(t)
	e, err := f.c.open(ctx, testSpec(), o)
	if err != nil {
		t.Fatal(err)
	}
	info := e.Info()
	if info.Resumed || info.Template != "shop/checkout" || info.Namespace != "shop" || info.Provider != "kubernetes" || info.Context != "test" || info.Pod == "" {
		t.Errorf("%+v", info)
	}
	if e.Target().Arch != "arm64" || e.Process().Port != 8080 || e.container != "checkout" || e.secret != secretName(testSpec()) {
		t.Errorf("%+v %+v %q %q", e.Target(), e.Process(), e.container, e.secret)
	}
	sec, err := f.CoreV1().Secrets("shop").Get(ctx, secretName(testSpec()), metav1.GetOptions{})
	if err != nil || string(sec.Data["token"]) != testToken || len(sec.OwnerReferences) != 1 || !*sec.Immutable {
		t.Errorf("%+v, %v", sec, err)
	}

	f.ClearActions()
	again, err := f.c.open(ctx, testSpec(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Info().Resumed || again.Info().Pod != info.Pod {
		t.Errorf("%+v", again.Info())
	}
	if c := f.changes(); c != nil {
		t.Errorf("a second Open changed something: %v", c)
	}

	// Another token: the pod must be replaced, its Secret too, and it is said.
	f.ClearActions()
	spec := testSpec()
	spec.Token = strings.Repeat("a", 64)
	if again, err = f.c.open(ctx, spec, o); err != nil {
		t.Fatal(err)
	}
	if again.Info().Pod == info.Pod || !again.Info().Resumed || !strings.Contains(f.progress(), "replacing the pod") {
		t.Errorf("%+v\n%s", again.Info(), f.progress())
	}
	if d := cmp.Diff([]string{"patch deployments", "patch secrets", "delete secrets"}, f.changes()); d != "" {
		t.Error(d)
	}

	found, err := f.c.find(ctx, o, Filter{Owner: "ann@desk"})
	if err != nil || len(found) != 1 || found[0].Owner != "ann@desk" || found[0].Dir != "/home/ann/checkout" || found[0].Branch != "feature/x" || found[0].Pod == "" || found[0].Created.IsZero() {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err = f.c.find(ctx, o, Filter{Owner: "bob@desk"}); err != nil || found != nil {
		t.Errorf("%+v, %v", found, err)
	}

	same, err := f.c.lookup(ctx, o, "shop", spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := same.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	f.wantOnly(t, "shop", []string{"checkout"})
	if _, err := f.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{}); err != nil {
		t.Errorf("somebody else's namespace: %v", err)
	}
	if err := same.Delete(ctx); err != nil {
		t.Errorf("a second Delete: %v", err)
	}
	_, err = f.c.lookup(ctx, o, "shop", spec.Name)
	wantCode(t, "lookup", err, "gone")
}

// wantOnly checks what is left in a namespace.
func (f *fakeCluster) wantOnly(t *testing.T, ns string, deployments []string) {
	t.Helper()
	left := func(l runtime.Object, err error) []string {
		n, err := names(l, err)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if d := cmp.Diff(deployments, left(f.AppsV1().Deployments(ns).List(t.Context(), metav1.ListOptions{}))); d != "" {
		t.Errorf("deployments: %s", d)
	}
	if n := left(f.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})); n != nil {
		t.Errorf("secrets %v", n)
	}
	// The fake's controller may be a step behind a deletion, as a cluster's garbage collector is.
	for end := time.Now().Add(10 * time.Second); ; {
		n := left(f.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{}))
		if n == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("pods %v", n)
		}
		<-time.After(time.Millisecond)
	}
}

func TestOpenInOwnNamespace(t *testing.T) {
	ctx := soon(t)
	f := newFake(t)
	o := f.options(t)
	o.Namespace = ""
	e, err := f.c.open(ctx, testSpec(), o)
	if err != nil {
		t.Fatal(err)
	}
	const ns = "fairlead-checkout-ann-3f2a"
	n, err := f.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Info().Namespace != ns || n.Labels["pod-security.kubernetes.io/enforce"] != "restricted" || !madeByUs(n) {
		t.Errorf("%+v\n%+v", e.Info(), n)
	}
	// Somebody puts something into it: it stays, and then it goes.
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mine", Namespace: ns}}
	if err := f.Tracker().Add(cm); err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err != nil || !strings.Contains(f.progress(), "is kept: there is ConfigMap mine in it") {
		t.Errorf("%v\n%s", err, f.progress())
	}
	if err := f.CoreV1().ConfigMaps(ns).Delete(ctx, "mine", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if e, err = f.c.open(ctx, testSpec(), o); err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
}

func TestNamespaceThatOnlyLooksLikeOurs(t *testing.T) {
	for name, ann := range map[string]map[string]string{
		"no annotation": nil,
		"no UID":        {annMadeFor: "x"},
		"a copy's UID":  {annMadeFor: "x", annMadeUID: "that of the original"},
		"UID alone":     {annMadeUID: "uid-of-shop"},
	} {
		n := namespace("shop")
		n.Annotations = ann
		f := newFake(t, n)
		if _, err := f.c.deleteNamespace(soon(t), "shop", "x", "", func(string) {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c := f.changes(); c != nil {
			t.Errorf("%s: %v", name, c)
		}
	}
}

func TestWhichNamespace(t *testing.T) {
	inDefault := staging(t)
	inDefault.Namespace = "default"
	for name, c := range map[string]struct {
		o        Options
		context  string
		objects  []runtime.Object
		ns, code string
	}{
		"flag":               {o: Options{Namespace: "a"}, context: "b", ns: "a"},
		"context":            {context: "b", ns: "b"},
		"staging in default": {objects: []runtime.Object{inDefault}, ns: "default"},
		"own":                {ns: "fairlead-checkout-ann-3f2a"},
		"template's":         {o: Options{Template: "shop/checkout"}, context: "b", ns: "shop"},
		"template elsewhere": {o: Options{Template: "shop/checkout", Namespace: "a"}, code: "template-elsewhere"},
	} {
		f := newFake(t, c.objects...)
		f.c.namespace = c.context
		ns, _, err := f.c.choosePlace(t.Context(), testSpec().Name, "checkout", c.o)
		wantCode(t, name, err, c.code)
		if ns != c.ns {
			t.Errorf("%s: %q, want %q", name, ns, c.ns)
		}
	}
	if n := ownNamespace("shop", strings.Repeat("a", 63)); len(n) != 63 {
		t.Errorf("%q is no namespace name", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	foreign := staging(t)
	foreign.Name = testSpec().Name
	copied, _ := testBlueprint(t, nil).deployment() // ours, under another name
	copied.Name = testSpec().Name
	copied.Labels[labelEnvironment] = "original"
	bobs, _ := blueprint{spec: func() bridge.Spec { s := testSpec(); s.Owner = "bob@desk"; return s }(), namespace: "shop", image: "i"}.deployment()
	windows := staging(t)
	windows.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"}
	for name, c := range map[string]struct {
		object runtime.Object
		edit   func(*fakeCluster, *Options)
		code   string
		words  string
	}{
		"foreign Deployment": {foreign, nil, "name-taken", "not made by Fairlead"},
		"copied Deployment":  {copied, nil, "name-taken", "not made by Fairlead"},
		"another's":          {bobs, nil, "name-taken", "belongs to bob@desk"},
		"no template":        {nil, func(_ *fakeCluster, o *Options) { o.Template = "missing" }, "no-template", "missing"},
		"windows":            {windows, nil, "unsupported-arch", "windows"},
		"no registry":        {nil, func(_ *fakeCluster, o *Options) { o.Registry = "" }, "no-registry", "registry"},
		"no right": {nil, func(f *fakeCluster, _ *Options) {
			f.deny = func(verb, resource string) bool { return verb == "create" && resource == "pods/exec" }
		}, "forbidden", "create pods/exec in namespace shop"},
		"no rights at all": {nil, func(f *fakeCluster, _ *Options) {
			f.deny = func(string, string) bool { return true }
		}, "forbidden", "get deployments.apps in namespace shop; nor list deployments.apps"},
		"no right to make the namespace": {nil, func(f *fakeCluster, o *Options) {
			o.Namespace = "new"
			f.deny = func(verb, resource string) bool { return verb == "create" && resource == "namespaces" }
		}, "forbidden", "create namespaces"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []runtime.Object{namespace("shop")}
			if c.object != nil {
				objects = append(objects, c.object)
			}
			f := newFake(t, objects...)
			o := f.options(t)
			if c.edit != nil {
				c.edit(f, &o)
			}
			_, err := f.c.open(soon(t), testSpec(), o)
			wantCode(t, name, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, want %q in it", err, c.words)
			}
			if c := f.changes(); c != nil {
				t.Errorf("something was changed all the same: %v", c)
			}
		})
	}
}

func TestFailedOpenLeavesNothing(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	o.Namespace = "new"
	f.PrependReactor("patch", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "x", fmt.Errorf("exceeded quota: q"))
	})
	_, err := f.c.open(soon(t), testSpec(), o)
	wantCode(t, "open", err, "refused")
	f.wantOnly(t, "new", nil)
	if _, err := f.CoreV1().Namespaces().Get(t.Context(), "new", metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
}

func TestDeleteOfAnothersDeployment(t *testing.T) {
	for name, edit := range map[string]func(context.Context, *fakeCluster, *Environment) error{
		"another UID": func(_ context.Context, _ *fakeCluster, e *Environment) error {
			e.uid = "of one that was here before"
			return nil
		},
		"no longer an environment": func(ctx context.Context, f *fakeCluster, e *Environment) error {
			d, err := f.AppsV1().Deployments("shop").Get(ctx, e.name, metav1.GetOptions{})
			if err == nil {
				delete(d.Labels, labelEnvironment)
				_, err = f.AppsV1().Deployments("shop").Update(ctx, d, metav1.UpdateOptions{})
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := soon(t)
			f := newFake(t, namespace("shop"))
			e, err := f.c.open(ctx, testSpec(), f.options(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := edit(ctx, f, e); err != nil {
				t.Fatal(err)
			}
			f.ClearActions()
			wantCode(t, "delete", e.Delete(ctx), "name-taken")
			if c := f.changes(); c != nil {
				t.Errorf("something was changed all the same: %v", c)
			}
		})
	}
}

// Between a look and a change another may have taken a name: each change and deletion names the very object that was
// looked at, so that the API server refuses the others.
func TestChangesNameTheirObject(t *testing.T) {
	ctx := soon(t)
	f := newFake(t)
	o := f.options(t)
	o.Namespace = ""
	e, err := f.c.open(ctx, testSpec(), o)
	if err != nil {
		t.Fatal(err)
	}
	ds := f.AppsV1().Deployments(e.namespace)
	d, err := ds.Get(ctx, e.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.UID = "uid-of-the-deployment" // the fake gives none
	if _, err := ds.Update(ctx, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	n, err := f.CoreV1().Namespaces().Get(ctx, e.namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.ClearActions()
	spec := testSpec()
	spec.Token = strings.Repeat("a", 64)
	if e, err = f.c.open(ctx, spec, o); err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	uids := map[string]types.UID{"deployments": d.UID, "namespaces": n.UID}
	seen := map[string]int{}
	for _, a := range f.Actions() {
		uid, watched := uids[a.GetResource().Resource]
		switch a := a.(type) {
		case ktesting.PatchActionImpl:
			if watched && !strings.Contains(string(a.Patch), fmt.Sprintf("\"uid\":%q", uid)) {
				t.Errorf("%s %s: no %s in %s", a.Verb, a.Resource.Resource, uid, a.Patch)
			}
		case ktesting.DeleteActionImpl:
			if p := a.DeleteOptions.Preconditions; watched && (p == nil || p.UID == nil || *p.UID != uid) {
				t.Errorf("%s %s: preconditions %+v, want %s", a.Verb, a.Resource.Resource, p, uid)
			}
		}
		if watched {
			seen[a.GetVerb()+" "+a.GetResource().Resource]++
		}
	}
	// The Deployment itself, and then its own UID into it; the namespace is told that it is used.
	if d := cmp.Diff(map[string]int{"patch deployments": 2, "delete deployments": 1, "patch namespaces": 1, "delete namespaces": 1}, changesOf(seen)); d != "" {
		t.Error(d)
	}
}

// A namespace that somebody else made at the same time is used, and is left when the start fails.
func TestNamespaceMadeMeanwhile(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	o.Namespace = "new"
	f.PrependReactor("create", "namespaces", func(ktesting.Action) (bool, runtime.Object, error) {
		if err := f.Tracker().Add(namespace("new")); err != nil {
			t.Error(err)
		}
		return true, nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "namespaces"}, "new")
	})
	f.PrependReactor("patch", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "x", fmt.Errorf("exceeded quota: q"))
	})
	_, err := f.c.open(soon(t), testSpec(), o)
	wantCode(t, "open", err, "refused")
	f.wantOnly(t, "new", nil)
	if slices.Contains(f.changes(), "delete namespaces") {
		t.Error("somebody else's namespace was to be deleted")
	}
}

// An environment of the service's own name is no staging Deployment to be like.
func TestEnvironmentIsNoTemplate(t *testing.T) {
	f := newFake(t, namespace("shop"))
	spec := testSpec()
	spec.Name = spec.Service
	first, err := f.c.open(soon(t), spec, f.options(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := f.c.open(soon(t), testSpec(), f.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if first.Info().Template != "" || second.Info().Template != "" {
		t.Errorf("templates %q and %q", first.Info().Template, second.Info().Template)
	}
}

// What is printed by fairlead rbac is what is used: no less, and no more.
func TestRightsAreThoseUsed(t *testing.T) {
	ctx := soon(t)
	f := newFake(t, append(dependencies(), staging(t), namespace("shop"), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "checkout", Namespace: "shop"}})...)
	o := f.options(t)
	o.Namespace = ""
	f.c.namespace = ""
	run := func(o Options) {
		e, err := f.c.open(ctx, testSpec(), o)
		if err != nil {
			t.Fatal(err)
		}
		if o.Namespace != "" {
			// Fresh copies, with all that they may have; then one more and another port, which changes those that are there.
			spec := testSpec()
			spec.Dependencies = map[string]api.DependencyWish{"db": {Mode: api.DependencyFresh, Seed: "fill"}, "queue": {Mode: api.DependencyFresh}}
			if _, err := f.c.open(ctx, spec, o); err != nil {
				t.Fatal(err)
			}
			svc, err := f.CoreV1().Services("shop").Get(ctx, "db", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			svc.Spec.Ports[0].Port++
			if err := f.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), svc, "shop"); err != nil {
				t.Fatal(err)
			}
			spec.Dependencies["billing"] = api.DependencyWish{Mode: api.DependencyFresh}
			if _, err := f.c.open(ctx, spec, o); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.c.find(ctx, o, Filter{}); err != nil {
			t.Fatal(err)
		}
		if err := e.Delete(ctx); err != nil {
			t.Fatal(err)
		}
	}
	run(o)
	o.Namespace = "shop"
	run(o)
	used := map[string]bool{
		// What the fake has no part in: the exec stream and logs; that applying what is not there is a create; what only happens
		// when a pod waits for long, or what is deleted takes a while to go.
		"create pods/exec": true, "get pods/log": true, "create deployments": true, "create secrets": true, "watch events": true, "watch namespaces": true, "watch deployments": true, "watch pods": true,
		"list events": true, "watch services": true, "watch statefulsets": true, "watch persistentvolumeclaims": true, "watch jobs": true,
	}
	free := []string{
		"create selfsubjectaccessreviews", // everybody may ask about himself
		"get nodes",                       // asked for, and done without
	}
	for _, a := range f.Actions() {
		used[a.GetVerb()+" "+a.GetResource().Resource] = true
	}
	granted := map[string]bool{}
	for _, g := range slices.Concat(grants(), namespaceGrants()) {
		for _, v := range g.verbs {
			granted[v+" "+g.resource] = true
			if !used[v+" "+g.resource] {
				t.Errorf("%s %s is asked for and not used", v, g.resource)
			}
		}
	}
	for u := range used {
		if !granted[u] && !slices.Contains(free, u) {
			t.Errorf("%s is used and not asked for", u)
		}
	}
}

// dependencies are those of shop/checkout: db with a claim, queue as a StatefulSet, billing, and a CronJob that fills one.
func dependencies() []runtime.Object {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "shop"} }
	tmpl := func(name string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: name}}}}
	}
	var out []runtime.Object
	for _, name := range []string{"db", "queue", "billing"} {
		out = append(out, &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}}})
	}
	db := tmpl("db")
	db.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	return append(out, &corev1.PersistentVolumeClaim{ObjectMeta: meta("data")}, &batchv1.CronJob{ObjectMeta: meta("fill")},
		&appsv1.Deployment{ObjectMeta: meta("db"), Spec: appsv1.DeploymentSpec{Template: db}},
		&appsv1.Deployment{ObjectMeta: meta("billing"), Spec: appsv1.DeploymentSpec{Template: tmpl("billing")}},
		&appsv1.StatefulSet{ObjectMeta: meta("queue"), Spec: appsv1.StatefulSetSpec{Template: tmpl("queue")}})
}

func TestRole(t *testing.T) {
	golden(t, "role.yaml", Role(RoleOptions{Namespace: "shop", User: "ann@example.test", OwnNamespace: true}))
	if s := string(Role(RoleOptions{ServiceAccount: "ci/robot"})); !strings.Contains(s, "name: robot\n  namespace: ci\n") || !strings.Contains(s, "namespace: NAMESPACE") || strings.Contains(s, "ClusterRole") {
		t.Error(s)
	}
}

// changesOf leaves out the verbs that only ask.
func changesOf(seen map[string]int) map[string]int {
	out := map[string]int{}
	for k, n := range seen {
		if v, _, _ := strings.Cut(k, " "); v != "get" && v != "list" && v != "watch" {
			out[k] = n
		}
	}
	return out
}
