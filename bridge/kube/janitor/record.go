package janitor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"fairlead.dev/bridge/kube"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// recordName is the ConfigMap with the reasons, one entry an environment, by UID.
	recordName = "fairlead-gone"
	// recordAge is how long an entry stays, recordMost how many do: a ConfigMap holds a mebibyte.
	recordAge  = 7 * 24 * time.Hour
	recordMost = 500
	// recordTries bounds how often a write is tried that others' writes get in the way of.
	recordTries = 10
)

// Gone is why an environment is no longer there.
type Gone struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	Service   string    `json:"service,omitempty"`
	Owner     string    `json:"owner,omitempty"`
	UID       types.UID `json:"uid"`
	LastUse   time.Time `json:"last_use"`
	At        time.Time `json:"at"` // by the API server's clock
	Why       string    `json:"why"`
	By        string    `json:"by"`
}

func gone(d *appsv1.Deployment, f *Finding, now time.Time, by string) Gone {
	return Gone{Name: d.Name, Namespace: d.Namespace, Service: f.Service, Owner: f.Owner, UID: d.UID, LastUse: f.LastUse, At: now, Why: f.Decision.Why, By: by}
}

// recordPlace is the namespace that the record of an environment is kept in: its own if that stays, else the janitor's;
// "" is none.
func (j *Janitor) recordPlace(ctx context.Context, ns string) (string, error) {
	n, err := j.o.Cluster.Kube().CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
	if apierrors.IsForbidden(err) {
		return ns, nil // who may not look at namespaces has made none
	}
	if err != nil {
		return "", err
	}
	if _, _, made := kube.MadeNamespace(n); made {
		return j.o.RecordNamespace, nil
	}
	return ns, nil
}

// write adds an entry, and drops what is old or too much. Writing it twice is writing it once.
func (j *Janitor) write(ctx context.Context, ns string, g Gone, now time.Time) error {
	b, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("record that %s goes: %w", g.Name, err)
	}
	return j.edit(ctx, ns, true, func(have map[string]string) map[string]any {
		patch := map[string]any{string(g.UID): string(b)}
		var rest []Gone
		for k, v := range have {
			old, ok := parse(k, v)
			switch {
			case !ok:
				continue // not ours to judge
			case now.Sub(old.At) > recordAge:
				patch[k] = nil
			case k != string(g.UID):
				rest = append(rest, old)
			}
		}
		slices.SortFunc(rest, func(a, b Gone) int { return b.At.Compare(a.At) })
		for i, old := range rest {
			if i >= recordMost-1 {
				patch[string(old.UID)] = nil
			}
		}
		return patch
	})
}

// unwrite takes an entry back.
func (j *Janitor) unwrite(ctx context.Context, ns string, g Gone) error {
	return j.edit(ctx, ns, false, func(map[string]string) map[string]any { return map[string]any{string(g.UID): nil} })
}

// edit changes the record as it is at that moment, or tries again.
func (j *Janitor) edit(ctx context.Context, ns string, make bool, change func(have map[string]string) map[string]any) (err error) {
	maps := j.o.Cluster.Kube().CoreV1().ConfigMaps(ns)
	for range recordTries {
		var cm *corev1.ConfigMap
		cm, err = maps.Get(ctx, recordName, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && !make:
			return nil
		case apierrors.IsNotFound(err):
			cm, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: recordName, Labels: map[string]string{recordLabel: "gone"}}}, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				continue
			}
		case err == nil && cm.Labels[recordLabel] != "gone":
			return fmt.Errorf("ConfigMap %s in namespace %s is somebody else's: it has no label %s", recordName, ns, recordLabel)
		}
		if err != nil {
			return err
		}
		var b []byte
		b, err = json.Marshal(map[string]any{"metadata": map[string]any{"uid": cm.UID, "resourceVersion": cm.ResourceVersion}, "data": change(cm.Data)})
		if err != nil {
			return fmt.Errorf("write ConfigMap %s: %w", recordName, err)
		}
		if _, err = maps.Patch(ctx, recordName, types.MergePatchType, b, metav1.PatchOptions{}); err == nil || !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return err
}

// recordLabel marks the ConfigMap as ours.
const recordLabel = "fairlead.dev/record"

// parse reads an entry; false if it is none.
func parse(key, value string) (g Gone, ok bool) {
	return g, json.Unmarshal([]byte(value), &g) == nil && key == string(g.UID) && g.Name != "" && !g.At.IsZero()
}

// Gone lists why environments went, newest first, in a namespace or, with "", in all that may be listed. One that is
// still there, because it was used just before it was to go, is left out.
func (j *Janitor) Gone(ctx context.Context, ns string) ([]Gone, error) {
	cl := j.o.Cluster
	l, err := cl.Kube().CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", recordName).String()})
	if ns == "" && apierrors.IsForbidden(err) {
		ns = cmp.Or(cl.Namespace(), metav1.NamespaceDefault)
	}
	if apierrors.IsForbidden(err) { // to get one takes less than to list them
		var cm *corev1.ConfigMap
		if cm, err = cl.Kube().CoreV1().ConfigMaps(ns).Get(ctx, recordName, metav1.GetOptions{}); err == nil {
			l = &corev1.ConfigMapList{Items: []corev1.ConfigMap{*cm}}
		}
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, cl.Explain("read why environments went", err)
	}
	ds, _, err := cl.Environments(ctx, kube.Filter{})
	if err != nil {
		return nil, err
	}
	there := map[types.UID]bool{}
	for _, d := range ds {
		there[d.UID] = d.DeletionTimestamp == nil
	}
	var out []Gone
	for _, cm := range l.Items {
		if cm.Labels[recordLabel] != "gone" {
			continue
		}
		for k, v := range cm.Data {
			if g, ok := parse(k, v); ok && !there[g.UID] {
				out = append(out, g)
			}
		}
	}
	slices.SortFunc(out, func(a, b Gone) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Name, b.Name)) })
	return out, nil
}
