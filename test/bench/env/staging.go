package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"fairlead.dev/test/bench/measure"
	"fairlead.dev/test/image"
)

// staging is a namespace of the benchmark's own.
type staging struct {
	config    *rest.Config
	kube      kubernetes.Interface
	namespace string
	pods      map[string]corev1.PodSpec // of the workloads that are copied
	started   int                       // plain ones, so that none waits for the end of a former one's name
}

func newStaging(ctx context.Context) (*staging, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w (make cluster starts the test cluster)", err)
	}
	cfg.QPS = -1                           // as Fairlead's own
	cfg.WarningHandler = rest.NoWarnings{} // of kinds that are only counted
	k, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	ns, err := k.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-env-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("%w (make cluster starts the test cluster)", err)
	}
	return &staging{config: cfg, kube: k, namespace: ns.Name, pods: map[string]corev1.PodSpec{}}, nil
}

func (s *staging) close() {
	if err := s.kube.CoreV1().Namespaces().Delete(context.Background(), s.namespace, metav1.DeleteOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, "env: error:", err)
	}
}

// part is a workload that others depend on.
type part struct {
	name, image string
	port        int32
	env         []corev1.EnvVar
}

// deployMarket makes five workloads with Services, which are to be copied, and returns their names.
func (s *staging) deployMarket(ctx context.Context) ([]string, error) {
	bin, err := os.MkdirTemp("", "bench-env-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(bin)
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", bin+"/", "./cmd/pricing", "./cmd/cart")
	cmd.Dir, cmd.Env = *market, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	parts := []part{
		{name: "postgres", port: 5432, env: []corev1.EnvVar{{Name: "POSTGRES_USER", Value: "bench"}, {Name: "POSTGRES_DB", Value: "bench"}, {Name: "POSTGRES_PASSWORD", Value: "bench"}}},
		{name: "mariadb", port: 3306, env: []corev1.EnvVar{{Name: "MARIADB_USER", Value: "bench"}, {Name: "MARIADB_DATABASE", Value: "bench"}, {Name: "MARIADB_PASSWORD", Value: "bench"}}},
		{name: "redis", port: 6379},
		{name: "pricing", port: 8080, env: []corev1.EnvVar{{Name: "PRICES_AFTER", Value: "1s"}}},
		{name: "cart", port: 9090, env: []corev1.EnvVar{{Name: "REDIS_ADDR", Value: "redis:6379"}}},
	}
	push := map[string]func(context.Context, string) (string, error){"postgres": image.Postgres, "mariadb": image.MariaDB, "redis": image.Redis}
	var names []string
	for _, p := range parts {
		if f := push[p.name]; f != nil {
			p.image, err = f(ctx, *registry)
		} else {
			p.image, err = image.Program(ctx, *registry, "bench/"+p.name, filepath.Join(bin, p.name))
		}
		if err != nil {
			return nil, err
		}
		if err := s.deploy(ctx, p); err != nil {
			return nil, err
		}
		names = append(names, p.name)
	}
	return names, nil
}

// deployTen makes ten small workloads with Services, which are to be shared.
func (s *staging) deployTen(ctx context.Context) (names []string, err error) {
	small := s.pods["pricing"].Containers[0].Image
	for i := range 10 {
		p := part{name: fmt.Sprint("dep", i), image: small, port: 8080, env: []corev1.EnvVar{{Name: "PRICES_AFTER", Value: "1ms"}}}
		if err := s.deploy(ctx, p); err != nil {
			return nil, err
		}
		names = append(names, p.name)
	}
	return names, nil
}

func (s *staging) deploy(ctx context.Context, p part) error {
	port := intstr.FromInt32(p.port)
	s.pods[p.name] = corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: p.name, Image: p.image, Env: p.env,
		Ports:          []corev1.ContainerPort{{ContainerPort: p.port}},
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}}}}}
	if p.name == "pricing" { // its port is open before it is ready
		s.pods[p.name].Containers[0].ReadinessProbe.ProbeHandler = corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: port}}
	}
	if _, err := s.kube.CoreV1().Services(s.namespace).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: p.name}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": p.name}, Ports: []corev1.ServicePort{{Port: p.port}}}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return s.workload(ctx, p.name, map[string]string{"app": p.name}, s.pods[p.name])
}

// workload makes a StatefulSet of PostgreSQL, as is usual, and a Deployment of others.
func (s *staging) workload(ctx context.Context, name string, labels map[string]string, pod corev1.PodSpec) error {
	t := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod}
	sel := &metav1.LabelSelector{MatchLabels: labels}
	if pod.Containers[0].Name == "postgres" {
		_, err := s.kube.AppsV1().StatefulSets(s.namespace).Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: appsv1.StatefulSetSpec{ServiceName: "postgres", Selector: sel, Template: t}}, metav1.CreateOptions{})
		return err
	}
	_, err := s.kube.AppsV1().Deployments(s.namespace).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{Selector: sel, Template: t}}, metav1.CreateOptions{})
	return err
}

// service makes the staging Deployment of a service under edit, without a pod, which names what it depends on.
func (s *staging) service(ctx context.Context, name string, needs []string) error {
	// Its own program is never started: an environment's pod runs the supervisor in its place.
	small, err := image.Files{"/none": nil}.Push(ctx, *registry, "bench/none", image.Config{Entrypoint: []string{"/none"}})
	if err != nil {
		return err
	}
	c := corev1.Container{Name: name, Image: small, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m")}}}
	for i, n := range needs {
		svc, err := s.kube.CoreV1().Services(s.namespace).Get(ctx, n, metav1.GetOptions{})
		if err != nil {
			return err
		}
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("NEED%d_ADDR", i), Value: fmt.Sprintf("%s:%d", n, svc.Spec.Ports[0].Port)})
	}
	labels := map[string]string{"app": name}
	_, err = s.kube.AppsV1().Deployments(s.namespace).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{c}}}}}, metav1.CreateOptions{})
	return err
}

// plain starts workloads like staging's all at once, and returns how long it takes until the last is ready.
func (s *staging) plain(ctx context.Context, names ...string) (float64, error) {
	s.started++
	called := func(n string) string { return fmt.Sprintf("plain-%d-%s", s.started, n) }
	start := time.Now()
	for _, n := range names {
		if err := s.workload(ctx, called(n), map[string]string{"plain": n, "bench": "plain"}, s.pods[n]); err != nil {
			return 0, err
		}
	}
	if err := s.ready(ctx, "bench=plain", len(names)); err != nil {
		return 0, err
	}
	took := measure.MS(time.Since(start))
	foreground := metav1.DeletePropagationForeground
	for _, n := range names {
		err := s.kube.AppsV1().Deployments(s.namespace).Delete(ctx, called(n), metav1.DeleteOptions{PropagationPolicy: &foreground})
		if apierrors.IsNotFound(err) {
			err = s.kube.AppsV1().StatefulSets(s.namespace).Delete(ctx, called(n), metav1.DeleteOptions{PropagationPolicy: &foreground})
		}
		if err != nil {
			return 0, err
		}
	}
	return took, s.until(ctx, "bench=plain", func(pods []corev1.Pod) bool { return len(pods) == 0 })
}

// ready waits until so many pods with a label are ready.
func (s *staging) ready(ctx context.Context, label string, n int) error {
	return s.until(ctx, label, func(pods []corev1.Pod) bool {
		have := 0
		for _, p := range pods {
			if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
				have++
			}
		}
		return have >= n
	})
}

// until watches pods with a label until ok says so.
func (s *staging) until(ctx context.Context, label string, ok func([]corev1.Pod) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		l, err := s.kube.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
		if err != nil {
			return fmt.Errorf("wait for pods: %w", err)
		}
		if ok(l.Items) {
			return nil
		}
		w, err := s.kube.CoreV1().Pods(s.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: label, ResourceVersion: l.ResourceVersion})
		if err != nil {
			return fmt.Errorf("wait for pods: %w", err)
		}
		select {
		case <-w.ResultChan():
		case <-ctx.Done():
		}
		w.Stop()
	}
}
