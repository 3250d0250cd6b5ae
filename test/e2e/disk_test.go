package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.dev/api"
)

// No space is left for what was saved: that is told, what ran goes on, and the next save after there is space works.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "mounting a small file system takes root")
	}
	// The executable has some 6 MB: there is no space to build it, or none for the environment's copy.
	for name, sub := range map[string]string{"build": "", "environment": "fairlead/local"} {
		t.Run(name, func(t *testing.T) {
			p := newLocal(t)
			dir := filepath.Join(p.m.state, sub)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64m,mode=700"); err != nil {
				skip(t, "mounting a small file system: "+err.Error())
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			s := newTiny(t, "v1")
			a := p.run(t, s.dir, "--", "-port", p.port(t))
			a.live(t, "v1")
			a.survivesFullDisk(t, s, dir)
			if name == "environment" {
				a.makesSpace(t, s, dir)
			}
			if code := a.interrupt(t); code != 0 {
				t.Errorf("exit %d", code)
			}
			p.wantNothing(t)
		})
	}
}

// The same in a pod: the volume that the service's executable is in is full at a save.
func TestDiskFullInPod(t *testing.T) {
	p := newKube(t)
	p.smallVolumes(t, corev1.StorageMediumMemory)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	dir := p.volume(t)
	a.survivesFullDisk(t, s, dir)
	a.makesSpace(t, s, dir)
	p.wantRestarts(t, 0)
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A volume on the node's disk has no such end: a pod that keeps more in it than it may is evicted. Its replacement gets
// the last good build, like that of a pod that was deleted, though the old one stays on.
func TestPodEvicted(t *testing.T) {
	t.Parallel()
	p := newKube(t)
	p.smallVolumes(t, corev1.StorageMediumDefault)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	s.edit(t, "v2")
	a.live(t, "v2")
	a.running(t, "v2")
	a.skipAll()
	old := p.c.pod(t, p.ns)
	if err := os.WriteFile(filepath.Join(p.volume(t), "filler"), make([]byte, 80<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	// The kubelet measures a volume once a minute.
	lost := a.waitFor(t, 3*time.Minute, "lost", isEnv("lost")).(*api.EnvironmentEvent)
	if lost.Reason == "" {
		t.Error("no reason is told")
	}
	a.wait(t, "connected", isEnv("connected"))
	a.live(t, "v2")
	a.running(t, "v2")
	// Which phase it ends in depends on who writes its status last, the kubelet's eviction or its containers' exit.
	if was, err := p.c.kube.CoreV1().Pods(p.ns).Get(context.Background(), old.Name, metav1.GetOptions{}); err != nil ||
		was.DeletionTimestamp != nil || was.Status.Phase != corev1.PodFailed && was.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the old pod is %q (%v), want it ended and still there", was.Status.Phase, err)
	}
	s.edit(t, "v3")
	a.live(t, "v3")
	a.running(t, "v3")
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	p.wantNothing(t)
}

// volume is the folder of the service's executable, as this machine (which is the cluster's node) sees it.
func (p *place) volume(t testing.TB) string {
	t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", one(t, "services", p.services(t))))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/root%s", one(t, "supervisors", p.supervisors(t)), filepath.Dir(exe))
}

// survivesFullDisk fills what dir is on while v1 runs, and leaves v4 running.
func (a *agent) survivesFullDisk(t testing.TB, s *service, dir string) {
	t.Helper()
	before := a.running(t, "v1")
	filler := filepath.Join(dir, "filler")
	fill(t, filler, 512<<10)
	a.skipAll()
	for _, v := range []string{"v2", "v3"} {
		s.edit(t, v)
		pr := a.wait(t, "the problem", isProblem(api.CodeDiskFull)).(*api.ProblemEvent)
		t.Logf("%+v", pr.Problem)
		if pr.Message == "" || pr.Hint == "" {
			t.Errorf("%+v", pr.Problem)
		}
		if got, err := get(a.url(t) + "/version"); err != nil || got != "v1" {
			t.Errorf("%q answers (%v), want v1", got, err)
		}
		now := a.p.m.status(t)
		if len(now) != 1 || now[0].Pod == nil || now[0].Pod.PID != before.PID || now[0].Pod.State != api.StateRunning || now[0].Pod.Digest != before.Digest {
			t.Errorf("now %+v, before %+v", now, before)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "v4")
	a.live(t, "v4")
	a.running(t, "v4")
}

// makesSpace fills what dir is on while v4 runs, less what the environment keeps of v1: that gives way.
func (a *agent) makesSpace(t testing.TB, s *service, dir string) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	fill(t, filler, 512<<10)
	s.edit(t, "v5")
	a.live(t, "v5")
	a.running(t, "v5")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
}

// smallVolumes gives the emptyDirs of the namespace's pods a medium and a limit of 64 MiB, as a cluster's own policy may.
// In memory they are file systems of that size.
func (p *place) smallVolumes(t testing.TB, medium corev1.StorageMedium) {
	t.Helper()
	ctx, v1 := context.Background(), p.c.kube.AdmissionregistrationV1()
	meta := metav1.ObjectMeta{Name: p.ns}
	t.Cleanup(func() {
		for _, err := range []error{
			v1.MutatingAdmissionPolicyBindings().Delete(ctx, p.ns, metav1.DeleteOptions{}),
			v1.MutatingAdmissionPolicies().Delete(ctx, p.ns, metav1.DeleteOptions{}),
		} {
			if err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	})
	_, err := v1.MutatingAdmissionPolicies().Create(ctx, &admissionv1.MutatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.MutatingAdmissionPolicySpec{
		FailurePolicy:      new(admissionv1.Fail),
		ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
		MatchConstraints: &admissionv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: p.ns}},
			ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}}},
		},
		Mutations: []admissionv1.Mutation{{PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{Expression: fmt.Sprintf(`
			[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].filter(i, i < size(object.spec.volumes) && has(object.spec.volumes[i].emptyDir)).map(i,
				JSONPatch{op: "replace", path: "/spec/volumes/" + string(i) + "/emptyDir", value: {"medium": %q, "sizeLimit": "64Mi"}})`, medium)}}},
	}}, metav1.CreateOptions{})
	if err == nil {
		_, err = v1.MutatingAdmissionPolicyBindings().Create(ctx, &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: meta,
			Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: p.ns}}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	// The API server takes a moment to hold to a new policy.
	probe := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Containers: []corev1.Container{{Name: "c", Image: "none", SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}}
	eventually(t, "the policy holds", func() error {
		got, err := p.c.kube.CoreV1().Pods(p.ns).Create(ctx, probe.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		if got.Spec.Volumes[0].EmptyDir.SizeLimit == nil {
			return errors.New("an emptyDir has no limit")
		}
		return nil
	})
}

// fill writes a file that leaves so much space.
func fill(t testing.TB, path string, free int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, int64(st.Bavail)*st.Bsize-free)); err != nil {
		t.Fatal(err)
	}
}
