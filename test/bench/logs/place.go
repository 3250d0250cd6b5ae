package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/local"
	"fairlead.dev/bridge/payload"
	"fairlead.dev/server"
	"fairlead.dev/server/journal"
	"fairlead.dev/syncer/build"
	"fairlead.dev/test/freeport"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a namespace of the benchmark's own.
type cluster struct {
	kube      kubernetes.Interface
	namespace string
}

func client(kubeconfig string) (kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(cfg)
}

func newCluster(ctx context.Context) (*cluster, error) {
	k, err := client(*kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w (make cluster starts the test cluster)", err)
	}
	ns, err := k.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-logs-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("%w (make cluster starts the test cluster)", err)
	}
	return &cluster{kube: k, namespace: ns.Name}, nil
}

func (c *cluster) close() {
	c.kube.CoreV1().Namespaces().Delete(context.Background(), c.namespace, metav1.DeleteOptions{})
}

// session is a service under edit in this process, as the agent holds it, and its journal on loopback.
type session struct {
	j      *journal.Journal
	srv    *http.Server
	addr   string
	token  string
	answer string
	cancel context.CancelFunc
	ended  chan error
}

// startSession runs the service on the cluster, or locally without one.
func startSession(ctx context.Context, dir string, c *cluster) (place, error) {
	mode := "local"
	if c != nil {
		mode = "kubernetes"
	}
	src := filepath.Join(dir, "src-"+mode)
	if err := os.CopyFS(src, os.DirFS(*source)); err != nil {
		return nil, err
	}
	src, err := filepath.EvalSymlinks(src)
	if err != nil {
		return nil, err
	}
	cfg := build.Config{Native: c == nil, Target: api.Target{OS: "linux", Arch: runtime.GOARCH}}
	svc, err := build.Find(ctx, src, build.FindOptions{Config: cfg})
	if err != nil {
		return nil, err
	}
	port, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	s := &session{j: journal.New(journal.Options{}), token: rand.Text(), ended: make(chan error, 1)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = ln.Addr().String()
	s.srv = &http.Server{Handler: journal.Loopback(s.token, func(string) *journal.Journal { return s.j })}
	go s.srv.Serve(ln)
	spec := bridge.Spec{Name: server.EnvironmentName(svc.Name, src, server.Owner(), mode), Service: svc.Name, Owner: server.Owner(), Dir: src, Version: "bench"}
	sess, err := server.NewSession(server.Config{
		Spec: spec, Record: server.Record{Environment: api.Environment{Name: spec.Name, Service: svc.Name, Provider: mode}, Dir: src},
		Records: server.Records{Dir: filepath.Join(dir, "state", mode)}, Service: svc, Build: cfg, Target: cfg.Target,
		Process: api.Process{Args: []string{"-addr", "127.0.0.1:" + strconv.Itoa(port)}},
		Emit:    func(e api.Event) { s.j.Append(e) },
		Open: func(ctx context.Context, spec bridge.Spec, progress bridge.Progress) (bridge.Environment, error) {
			if c == nil {
				return local.Open(ctx, spec, local.Options{StateDir: filepath.Join(dir, "local"), CacheDir: filepath.Join(dir, "cache"), SocketDir: filepath.Join(dir, "run"), Payload: payload.Executable})
			}
			return kube.Open(ctx, spec, kube.Options{Kubeconfig: *kubeconfig, Namespace: c.namespace, Registry: *registry, Payload: payload.Executable, Version: "bench", Progress: progress})
		},
	})
	if err != nil {
		return nil, err
	}
	sctx, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	go func() { s.ended <- sess.Run(sctx); s.j.Close() }()
	limit, stop := context.WithTimeout(ctx, 3*time.Minute)
	defer stop()
	for after := uint64(0); s.answer == ""; {
		es, err := s.j.Read(limit, after, false, 0)
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the session ended: %w", <-s.ended)
		}
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			after = e.Seq
			switch v := e.Event.(type) {
			case *api.ReadyEvent:
				s.answer = v.URL
			case *api.ProblemEvent:
				fmt.Fprintln(os.Stderr, "logs:", v.Problem.Message)
			case *api.EnvironmentEvent:
				say("%s: %s %s", mode, v.State, v.Reason)
			}
		}
	}
	return s, nil
}

func (s *session) url() string { return s.answer }

func (s *session) client(ctx context.Context, run string, lines int) *exec.Cmd {
	return self(ctx, "-client", "journal", run, strconv.Itoa(lines), fmt.Sprintf("ws://%s/v1/services/chatter/journal?after=%d", s.addr, s.j.Last()), s.token)
}

func (s *session) close() {
	s.cancel()
	if err := <-s.ended; err != nil {
		fmt.Fprintln(os.Stderr, "logs: the session's end:", err)
	}
	s.srv.Close()
}

func self(ctx context.Context, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	return exec.CommandContext(ctx, exe, args...)
}

// rival is a pod that runs the same service and writes the same lines to its own stdout.
type rival struct {
	c       *cluster
	pod, ip string
}

const rivalPort = 8080

// startRival makes the pod with the resources of an environment without a template. The executable comes from this
// machine, which is the cluster's only node, so that no image needs to be made.
func (c *cluster) startRival(ctx context.Context, dir string) (place, error) {
	exe := filepath.Join(dir, "chatter")
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", exe, ".")
	cmd.Dir, cmd.Env = *source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	image, err := c.image(ctx)
	if err != nil {
		return nil, err
	}
	uid, file := int64(65532), corev1.HostPathFile
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "rival-"}, Spec: corev1.PodSpec{
		AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false),
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: &uid},
		Containers: []corev1.Container{{Name: "chatter", Image: image, Command: []string{"/chatter", "-addr", ":" + strconv.Itoa(rivalPort)},
			VolumeMounts: []corev1.VolumeMount{{Name: "exe", MountPath: "/chatter", ReadOnly: true}}}},
		Volumes: []corev1.Volume{{Name: "exe", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: exe, Type: &file}}}},
	}}
	p, err = c.kube.CoreV1().Pods(c.namespace).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		now, err := c.kube.CoreV1().Pods(c.namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if now.Status.Phase == corev1.PodRunning && now.Status.PodIP != "" {
			if conn, err := net.Dial("tcp", net.JoinHostPort(now.Status.PodIP, strconv.Itoa(rivalPort))); err == nil {
				conn.Close()
				return &rival{c, p.Name, now.Status.PodIP}, nil
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("pod %s is %s", p.Name, now.Status.Phase)
		}
	}
}

// image is any that the cluster can run: the supervisor's, once an environment has brought it there.
func (c *cluster) image(ctx context.Context) (string, error) {
	ds, err := c.kube.AppsV1().Deployments(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, d := range ds.Items {
		for _, ct := range d.Spec.Template.Spec.Containers {
			return ct.Image, nil
		}
	}
	return "", errors.New("there is no environment whose image could be used: the mode fairlead must come before kubectl")
}

func (r *rival) url() string {
	return "http://" + net.JoinHostPort(r.ip, strconv.Itoa(rivalPort))
}

func (r *rival) client(ctx context.Context, run string, lines int) *exec.Cmd {
	return self(ctx, "-client", "pod", run, strconv.Itoa(lines), *kubeconfig, r.c.namespace, r.pod)
}

func (r *rival) close() {}

// podLog follows a pod's log as `kubectl logs -f --tail=1` does.
func podLog(ctx context.Context, kubeconfig, namespace, pod string) (io.ReadCloser, error) {
	k, err := client(kubeconfig)
	if err != nil {
		return nil, err
	}
	return k.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Follow: true, TailLines: new(int64(1))}).Stream(ctx)
}
