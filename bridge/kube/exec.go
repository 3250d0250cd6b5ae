package kube

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"

	"fairlead.dev/api"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// Dial opens one exec stream to the supervisor's socket in the environment's pod. It waits, within ctx, for a pod that
// is being replaced, and says through Options.Progress what it waits for. One that is asleep is an api.CodeAsleep: Wake is
// the caller's decision.
func (e *Environment) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	for {
		if e.joined {
			if _, err := e.c.joinable(ctx, e.opts, e.namespace, e.name, e.uid); err != nil {
				return nil, err
			}
		}
		p, err := e.livePod(ctx)
		if err != nil {
			return nil, err
		}
		e.copiesUp(ctx)
		e.setPod(p.Name)
		id := containerID(p, e.container)
		s, err := e.c.exec(ctx, e.namespace, p.Name, e.container, func(err error) {
			if isPodGone(err) {
				e.setEnded(id)
			}
		}, e.connectArgs()...)
		switch {
		case err == nil && e.joined:
			return readBearer(ctx, s)
		case err == nil:
			return s, nil
		}
		if !isPodGone(err) || id == "" {
			return nil, err
		}
	}
}

// endedLimit is how long a pod's status may say that a container runs of which the node has said that it does not.
const endedLimit = 10 * time.Second

// livePod waits for a pod whose container has not been seen to end. The node knows that before the pod's status says so;
// without this a Dial after a crash would be refused again and again until it does.
func (e *Environment) livePod(ctx context.Context) (*corev1.Pod, error) {
	w := wants{namespace: e.namespace, name: e.name, main: e.container, tell: e.opts.Progress, avoid: e.lastEnded()}
	if w.avoid != "" {
		actx, cancel := context.WithTimeout(ctx, endedLimit)
		defer cancel()
		p, err := e.c.pod(actx, w)
		if err == nil || actx.Err() == nil || ctx.Err() != nil {
			return p, err
		}
		w.avoid = ""
	}
	return e.c.pod(ctx, w)
}

func isPodGone(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == codePodGone
}

func containerID(p *corev1.Pod, name string) string {
	for _, st := range p.Status.ContainerStatuses {
		if st.Name == name {
			return st.ContainerID
		}
	}
	return ""
}

// stream is one exec stream. Its goroutine ends with Close, or when the far side ends.
type stream struct {
	pod    string
	stdin  *io.PipeWriter // what Write feeds
	stdout *io.PipeReader // what Read drains
	stderr tail
	cancel context.CancelFunc
}

func (s *stream) Read(p []byte) (int, error)  { return s.stdout.Read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.stdin.Write(p) }

// Close ends the stream at once. What was written and not yet sent is lost, as on any connection.
func (s *stream) Close() error {
	s.stdin.CloseWithError(io.ErrClosedPipe)
	s.stdout.CloseWithError(io.ErrClosedPipe)
	s.cancel()
	return nil
}

// exec starts the supervisor's connect command, with further arguments, in a container and returns when the API server has
// taken the stream on. What fails after that is told by Read, and to onEnd, which is called once.
func (c *client) exec(ctx context.Context, ns, pod, container string, onEnd func(error), args ...string) (*stream, error) {
	url := c.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(ns).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Stdin: true, Stdout: true, Stderr: true,
			Command: append([]string{podBinary, "connect", "--socket", podSocket}, args...)}, scheme.ParameterCodec).URL()
	up := make(chan struct{})
	cfg := rest.CopyConfig(c.config)
	taken := sync.OnceFunc(func() { close(up) })
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &upgraded{rt, taken} })
	ws, err := remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, url.String())
	if err != nil {
		return nil, c.explain("connect to pod "+pod, err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(cfg, http.MethodPost, url)
	if err != nil {
		return nil, c.explain("connect to pod "+pod, err)
	}
	both, err := remotecommand.NewFallbackExecutor(ws, spdy, fallsBack)
	if err != nil {
		return nil, c.explain("connect to pod "+pod, err)
	}

	// The stream outlives the dial, so it has a context of its own.
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	sctx = klog.NewContext(sctx, logr.Discard())
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	s := &stream{pod: pod, stdin: inW, stdout: outR, cancel: cancel}
	ended := make(chan error, 1)
	go func() {
		err := both.StreamWithContext(sctx, remotecommand.StreamOptions{Stdin: inR, Stdout: outW, Stderr: &s.stderr})
		cancel()
		err = s.reason(c, err)
		onEnd(err)
		ended <- err
		outW.CloseWithError(err)
		inR.CloseWithError(err)
	}()
	select {
	case <-up:
		return s, nil
	case err := <-ended:
		if err == io.EOF {
			err = &api.Problem{Code: api.CodeLost, Message: "connect to pod " + pod + ": the stream ended at once"}
		}
		s.Close()
		return nil, err
	case <-ctx.Done():
		s.Close()
		return nil, c.explain("connect to pod "+pod, ctx.Err())
	}
}

// reason says why a stream ended. io.EOF is an orderly end.
func (s *stream) reason(c *client, err error) error {
	said := oneLine(s.stderr.String())
	if err == nil || errors.Is(err, context.Canceled) {
		if said == "" {
			return io.EOF
		}
		return &api.Problem{Code: api.CodeLost, Message: fmt.Sprintf("the connection to pod %s ended: %s", s.pod, said)}
	}
	var up *httpstream.UpgradeFailureError
	if errors.As(err, &up) && up.Cause != nil {
		err = up.Cause
	}
	var st *apierrors.StatusError
	var code exec.CodeExitError
	if isNotFound(err) || notThere.MatchString(err.Error()) {
		return &api.Problem{Code: codePodGone, Message: fmt.Sprintf("pod %s is gone: %s", s.pod, oneLine(err.Error())), Hint: "it is replaced by itself; if not, start again with fairlead run"}
	}
	switch {
	case errors.As(err, &code):
		why := fmt.Sprintf("exit code %d of its command", code.Code)
		if code.Code == 137 || code.Code == 143 {
			why = "its container was stopped"
		}
		return &api.Problem{Code: api.CodeLost, Message: fmt.Sprintf("the connection to pod %s ended: %s", s.pod, cmp.Or(said, why))}
	case errors.As(err, &st) && st.ErrStatus.Reason != metav1.StatusReasonInternalError, apierrors.IsForbidden(err):
		return c.explain("connect to pod "+s.pod, err)
	}
	if d, ok := parseDenial(err.Error()); ok { // SPDY gives a refusal as text
		return d.problem()
	}
	return &api.Problem{Code: api.CodeLost, Message: fmt.Sprintf("the connection to pod %s was lost: %s", s.pod, cmp.Or(said, oneLine(err.Error())))}
}

// notThere are the words of kubelet, of container runtimes (containerd's CRI and its shim, CRI-O, cri-dockerd) and of runc for
// a container that has ended, or that ends while a command is started in it. They come as text only.
var notThere = regexp.MustCompile(`container not (found|created|running)|CONTAINER_EXITED|container .*is not (created or )?running|` +
	`cannot exec (in )?a (container that has )?(stopped|deleted)|procReady not received|task .*not found|find container .*not found|` +
	`container .*in state exited|ttrpc: closed`)

// fallsBack tells whether SPDY may work where websocket did not: an API server before 1.30, a proxy that knows no
// websocket, or a Role that allows "create" only, which API servers before 1.35 do not take for a websocket's GET.
func fallsBack(err error) bool {
	if httpstream.IsHTTPSProxyError(err) {
		return true
	}
	var up *httpstream.UpgradeFailureError
	return errors.As(err, &up) && !apierrors.IsNotFound(up.Cause) && !apierrors.IsUnauthorized(up.Cause)
}

// upgraded tells when a request was answered by 101 Switching Protocols: the executors do not.
type upgraded struct {
	next  http.RoundTripper
	taken func()
}

func (u *upgraded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := u.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		u.taken()
	}
	return resp, err
}

// tail keeps the last few kilobytes of what a command said.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > tailSize {
		p = p[len(p)-tailSize:]
	}
	if over := t.b.Len() + len(p) - tailSize; over > 0 {
		t.b.Next(over)
	}
	t.b.Write(p)
	return n, nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
