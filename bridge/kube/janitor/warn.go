package janitor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// controller is who Events say that they are from.
	controller = "fairlead.dev/janitor"
	// instanceLimit is how long the API server lets an Event's reportingInstance be.
	instanceLimit = 128
)

// warn tells by an Event on the environment's Deployment what becomes of it and when, once for each such time: the Event's
// name is made of both, so that several janitors tell it once too. It returns why it could not; nothing else depends on it.
func (j *Janitor) warn(ctx context.Context, d *appsv1.Deployment, f *Finding, now time.Time) (note string) {
	key := string(d.UID) + " " + string(f.Decision.Then) + " " + f.Decision.Due.UTC().Format(time.RFC3339)
	j.mu.Lock()
	told := j.warned[d.UID] == key || j.mayNotWarn
	j.mu.Unlock()
	if told {
		return ""
	}
	hash := sha256.Sum256([]byte(key))
	by := j.o.By
	if len(by) > instanceLimit {
		by = by[:instanceLimit]
	}
	becomes := map[lease.Action]string{lease.Sleep: "put to sleep", lease.Delete: "deleted"}[f.Decision.Then]
	_, err := j.o.Cluster.Kube().EventsV1().Events(d.Namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "." + hex.EncodeToString(hash[:8])},
		EventTime:  metav1.NewMicroTime(now), ReportingController: controller, ReportingInstance: by, Action: "Warn", Reason: "Unused", Type: corev1.EventTypeWarning,
		Regarding: corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Namespace: d.Namespace, Name: d.Name, UID: d.UID, ResourceVersion: d.ResourceVersion},
		Note: fmt.Sprintf("%s: it is %s at %s unless somebody uses it; fairlead env keep %s --for 1d keeps it",
			f.Decision.Why, becomes, f.Decision.Due.UTC().Format(time.RFC3339), d.Name),
	}, metav1.CreateOptions{FieldManager: "fairlead-janitor"})
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		j.warned[d.UID] = key
		return ""
	case ctx.Err() != nil:
		return ""
	case apierrors.IsForbidden(err): // asked once: it will not become allowed by asking
		j.mayNotWarn = true
	}
	note = "the warning is not told as an Event: " + j.o.Cluster.Explain("create an Event", err).Error()
	j.o.Logger.Warn("janitor: "+note, "namespace", d.Namespace, "environment", d.Name)
	return note
}
