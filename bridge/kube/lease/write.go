package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
)

// change is a merge patch of a Deployment. UID, and resource version where the change rests on what was read, make it a
// change of that very object, or none.
type change struct {
	uid         types.UID
	version     string
	annotations map[string]any // nil deletes
	replicas    *int32
	manager     string
}

func (c change) send(ctx context.Context, ds appsclient.DeploymentInterface, name string) (*appsv1.Deployment, error) {
	meta := map[string]any{"uid": c.uid, "annotations": c.annotations}
	if c.version != "" {
		meta["resourceVersion"] = c.version
	}
	patch := map[string]any{"metadata": meta}
	if c.replicas != nil {
		patch["spec"] = map[string]any{"replicas": *c.replicas}
	}
	b, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("change Deployment %s: %w", name, err)
	}
	d, err := ds.Patch(ctx, name, types.MergePatchType, b, metav1.PatchOptions{FieldManager: c.manager})
	if apierrors.IsInvalid(err) && apierrors.HasStatusCause(err, metav1.CauseTypeFieldValueInvalid) && strings.Contains(err.Error(), "metadata.uid") {
		// Another Deployment has the name by now. The API server takes that for an attempt to change its UID.
		err = apierrors.NewConflict(appsv1.Resource("deployments"), name, errors.New("it is another Deployment of that name"))
	}
	return d, err
}

// Renew tells of a use. The API server stamps it because the value is another each time.
func Renew(ctx context.Context, ds appsclient.DeploymentInterface, name string, uid types.UID, why string) error {
	_, err := change{uid: uid, manager: managerUse, annotations: map[string]any{annUsed: rand.Text(), annUsedWhy: words(why)}}.send(ctx, ds, name)
	return err
}

// SetKeep keeps an environment until a time; the zero time keeps it no longer.
func SetKeep(ctx context.Context, ds appsclient.DeploymentInterface, name string, uid types.UID, until time.Time) error {
	var v any
	if !until.IsZero() {
		v = until.UTC().Format(time.RFC3339)
	}
	_, err := change{uid: uid, manager: managerKeep, annotations: map[string]any{annKeepUntil: v}}.send(ctx, ds, name)
	return err
}

// SetPolicy changes how long an environment stays.
func SetPolicy(ctx context.Context, ds appsclient.DeploymentInterface, name string, uid types.UID, p Policy) error {
	_, err := change{uid: uid, manager: managerOpen, annotations: map[string]any{annSleepAfter: text(p.Sleep), annDeleteAfter: text(p.Delete)}}.send(ctx, ds, name)
	return err
}

// PutToSleep scales to zero the object that was decided on. It fails with a conflict if that has changed since.
func PutToSleep(ctx context.Context, ds appsclient.DeploymentInterface, d *appsv1.Deployment, now time.Time) error {
	_, err := change{uid: d.UID, version: d.ResourceVersion, manager: managerJanitor, replicas: new(int32(0)),
		annotations: map[string]any{annAsleepSince: now.UTC().Format(time.RFC3339)}}.send(ctx, ds, d.Name)
	return err
}

// Wake scales to one what was put to sleep. It is a use.
func Wake(ctx context.Context, ds appsclient.DeploymentInterface, d *appsv1.Deployment, why string) error {
	_, err := change{uid: d.UID, version: d.ResourceVersion, manager: managerUse, replicas: new(int32(1)),
		annotations: map[string]any{annAsleepSince: nil, annUsed: rand.Text(), annUsedWhy: words(why)}}.send(ctx, ds, d.Name)
	return err
}

// NoteWoken writes down as a use that somebody scaled up the object that was decided on.
func NoteWoken(ctx context.Context, ds appsclient.DeploymentInterface, d *appsv1.Deployment) error {
	_, err := change{uid: d.UID, version: d.ResourceVersion, manager: managerUse,
		annotations: map[string]any{annAsleepSince: nil, annUsed: rand.Text(), annUsedWhy: "it was scaled up"}}.send(ctx, ds, d.Name)
	return err
}

// WasPutToSleep tells a Deployment that a janitor scaled to zero from one that somebody else did.
func WasPutToSleep(d *appsv1.Deployment) bool {
	return d.Spec.Replicas != nil && *d.Spec.Replicas == 0 && d.Annotations[annAsleepSince] != ""
}

// Record writes into a Deployment that was just made or opened its own UID and its policy, and that it is awake. It
// writes nothing where all of that stands there already.
func Record(ctx context.Context, ds appsclient.DeploymentInterface, d *appsv1.Deployment, p *Policy) (*appsv1.Deployment, error) {
	want := map[string]any{MadeUID: string(d.UID)}
	if p != nil {
		want[annSleepAfter], want[annDeleteAfter] = text(p.Sleep), text(p.Delete)
	}
	same := d.Annotations[annAsleepSince] == ""
	for k, v := range want {
		same = same && d.Annotations[k] == v
	}
	if same {
		return d, nil
	}
	want[annAsleepSince] = nil
	return change{uid: d.UID, manager: managerOpen, annotations: want}.send(ctx, ds, d.Name)
}

func text(d time.Duration) string {
	if d == 0 {
		return never
	}
	return d.String()
}
