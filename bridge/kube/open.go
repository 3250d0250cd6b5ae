package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"
)

const (
	// contactLimit bounds what only asks: whoever types a command wants to know soon that the cluster does not answer.
	contactLimit = 10 * time.Second
	// undoLimit bounds the removal of what a failed Open made.
	undoLimit = 10 * time.Second
	// nodeLimit bounds the question for the node's architecture, which has a fair default.
	nodeLimit = time.Second
)

// Open finds the environment of a Spec or makes it, and returns when its pod can be dialled. What it made is removed
// again when it fails.
func Open(ctx context.Context, spec bridge.Spec, opts Options) (*Environment, error) {
	if opts.Version == "" {
		opts.Version = spec.Version
	}
	o := opts.withDefaults()
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	c, err := connect(o)
	if err != nil {
		return nil, err
	}
	return c.open(ctx, spec, o)
}

// survey is what was found before anything is changed.
type survey struct {
	*site                       // where the environment is, or is to be
	staging   string            // the namespace of the template and of what is shared
	isolated  bool              // the namespace is the environment's own, and gets a quota, a network policy and so on
	model     *corev1.Namespace // staging's; nil where it may not be seen
	beside    string            // why it is not, in words for a person; empty where that was not asked for
	template  *appsv1.Deployment
	container string     // of the template
	around    *landscape // what the service depends on

	payload  *payload
	registry *registry
	image    string        // the supervisor's, by digest
	unpushed v1.ImageIndex // it is not in the registry yet
}

// opening is one Open at work.
type opening struct {
	*survey
	c    *client
	o    Options
	spec bridge.Spec
	// anchor is a Deployment that was made without a pod, to own copies whose addresses its pod is to know.
	anchor *appsv1.Deployment
	// furnished: the namespace has what an isolated environment needs.
	furnished bool
	// restore: what is there is asleep, and is to be as it was if its copies cannot be had.
	restore bool

	mu   sync.Mutex
	undo []func(context.Context) error // newest last
}

func (c *client) open(ctx context.Context, spec bridge.Spec, o Options) (env *Environment, err error) {
	s, err := c.survey(ctx, spec, o)
	if err != nil {
		return nil, err
	}
	op := &opening{survey: s, c: c, o: o, spec: spec}
	for _, l := range s.around.lost {
		o.Progress(l)
	}
	if s.beside != "" {
		o.Progress(s.beside)
	}
	if err := op.checkWishes(ctx); err != nil {
		return nil, err
	}
	if s.around.err != nil {
		o.Progress("dependencies were not looked for: " + oneLine(s.around.err.Error()))
	}
	// How the service is started may take a look at its image; that goes on while the pod starts.
	type started struct {
		process api.Process
		notes   []string
	}
	proc := make(chan started, 1)
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		p, notes := op.process(pctx)
		proc <- started{p, notes}
	}()
	env, err = op.run(ctx)
	if err != nil {
		cancel()
	}
	p := <-proc
	if err != nil {
		op.unmake(ctx)
		return nil, err
	}
	for _, n := range p.notes {
		o.Progress(n)
	}
	env.process = p.process
	return env, nil
}

// survey asks for all that is needed, at once.
func (c *client) survey(ctx context.Context, spec bridge.Spec, o Options) (*survey, error) {
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	s := &survey{around: &landscape{}}
	var wg sync.WaitGroup
	var templateErr, payloadErr, imageErr error
	known := make(chan struct{}) // what is there has been asked for
	var given, own *site
	wg.Go(func() {
		if s.payload, payloadErr = readPayload(o); payloadErr != nil {
			return
		}
		<-known
		imageErr = s.findImage(ctx, o, given, own)
	})
	staging, template, placeErr := c.choosePlace(ctx, spec.Name, spec.Service, o)
	if placeErr != nil {
		close(known)
		wg.Wait()
		return nil, placeErr
	}
	s.staging = staging
	wg.Go(func() {
		defer close(known)
		var sites sync.WaitGroup
		sites.Go(func() { given = c.look(ctx, staging, spec.Name, false) })
		if o.Isolation != "" {
			sites.Go(func() { own = c.look(ctx, ownNamespace(staging, spec.Name), spec.Name, true) })
		}
		sites.Wait()
	})
	staged := make(chan struct{})
	wg.Go(func() {
		defer close(staged)
		s.template, templateErr = c.deployment(ctx, staging, template)
	})
	wg.Go(func() {
		in := []string{staging}
		if o.Isolation != "" {
			in = append(in, ownNamespace(staging, spec.Name))
		}
		s.around = c.landscape(ctx, in, func() *appsv1.Deployment {
			if <-staged; s.template == nil || s.template.Labels[labelEnvironment] != "" {
				return nil
			}
			return s.template
		}, spec)
	})
	wg.Wait()

	if err := s.settle(ctx, c, spec, o, given, own); err != nil {
		return nil, err
	}
	if s.nsErr != nil {
		return nil, c.explain("look at namespace "+s.namespace, s.nsErr)
	}
	if s.existingErr != nil || templateErr != nil {
		if len(s.missing) > 0 { // all of them at once instead of the first that was met
			return nil, together(s.missing)
		}
		return nil, c.explain("look for the environment", first(s.existingErr, templateErr))
	}
	if err := s.checkFound(spec, o, template); err != nil {
		return nil, err
	}
	return s, first(payloadErr, imageErr)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// deployment gets one; nil when there is none.
func (c *client) deployment(ctx context.Context, ns, name string) (*appsv1.Deployment, error) {
	d, err := c.kube.AppsV1().Deployments(ns).Get(ctx, name, metav1.GetOptions{})
	if isNotFound(err) {
		return nil, nil
	}
	return d, err
}

// checkFound refuses what is somebody else's, and chooses the template's container.
func (s *survey) checkFound(spec bridge.Spec, o Options, template string) (err error) {
	if e := s.existing; e != nil {
		if !isOurs(e) {
			return &api.Problem{Code: codeNameTaken, Message: fmt.Sprintf("Deployment %s in namespace %s was not made by Fairlead", e.Name, e.Namespace),
				Hint: "choose another namespace with --namespace, or another name with name: in fairlead.yaml"}
		}
		if e.Labels[labelOwner] != ownerHash(spec.Owner) {
			return &api.Problem{Code: codeNameTaken, Message: fmt.Sprintf("environment %s in namespace %s belongs to %s", e.Name, e.Namespace, e.Annotations[annOwner]),
				Hint: "choose another namespace with --namespace, or another name with name: in fairlead.yaml"}
		}
	}
	if s.template != nil && s.template.Labels[labelEnvironment] != "" {
		s.template = nil // an environment is like staging, not like another environment
	}
	if s.template == nil {
		if o.Template != "" {
			return &api.Problem{Code: "no-template", Message: fmt.Sprintf("there is no Deployment %s in namespace %s to be like", template, s.staging),
				Hint: "correct template: in fairlead.yaml, or say where it is with --namespace"}
		}
		// Without its variables and volumes the service would start as another one, and nobody has asked for that.
		if e := s.existing; e != nil && e.Annotations[annTemplate] == s.staging+"/"+template {
			return &api.Problem{Code: "no-template", Message: fmt.Sprintf("the staging Deployment %s/%s, after which environment %s was made, is gone", s.staging, template, e.Name),
				Hint: "bring it back; or remove the environment with fairlead stop, and the next fairlead run makes one without it"}
		}
		return nil
	}
	if s.container, err = serviceContainer(s.template, spec.Service); err != nil {
		return err
	}
	os, arch := platform(&s.template.Spec.Template.Spec)
	if os != "" && os != "linux" || arch != "" && arch != "amd64" && arch != "arm64" {
		return unsupportedArch(fmt.Sprintf("the staging Deployment %s/%s runs on %s/%s nodes", s.template.Namespace, s.template.Name, os, arch))
	}
	return nil
}

func unsupportedArch(what string) error {
	return &api.Problem{Code: "unsupported-arch", Message: what + "; Fairlead has a supervisor for linux/amd64 and linux/arm64",
		Hint: "run it on such a node, with nodeSelector in the staging Deployment"}
}

// findImage learns the reference of the supervisor's image, and builds the image when the registry does not have it. It
// pushes nothing yet.
func (s *survey) findImage(ctx context.Context, o Options, sites ...*site) error {
	// The same supervisor in an environment that is there: its registry need not be asked, nor even be named.
	for _, at := range sites {
		if at == nil || at.existing == nil || !isOurs(at.existing) || at.existing.Annotations[annPayload] != s.payload.digest {
			continue
		}
		e := at.existing
		for _, c := range e.Spec.Template.Spec.InitContainers {
			if c.Name == installContainer && (o.Registry == "" || strings.HasPrefix(c.Image, strings.TrimSuffix(o.Registry, "/")+"/")) {
				s.image = c.Image
				return nil
			}
		}
	}
	var err error
	if s.registry, err = openRegistry(o); err != nil {
		return err
	}
	if s.image, err = s.registry.find(ctx, s.payload); err != nil || s.image != "" {
		return err
	}
	if s.unpushed, err = s.payload.image(); err != nil {
		return fmt.Errorf("build the supervisor's image: %w", err)
	}
	d, err := s.unpushed.Digest()
	if err != nil {
		return fmt.Errorf("build the supervisor's image: %w", err)
	}
	s.image = s.registry.repo.Digest(d.String()).String()
	return nil
}

func (op *opening) run(ctx context.Context) (*Environment, error) {
	for {
		env, err := op.attempt(ctx)
		if err != errGoing {
			return env, err
		}
	}
}

// errGoing: the environment was on its way out and is gone now.
var errGoing = errors.New("it was being deleted")

func (op *opening) attempt(ctx context.Context) (*Environment, error) {
	created := time.Now()
	if n := op.ns; n != nil && n.DeletionTimestamp != nil {
		if err := op.c.namespaceGone(ctx, n, op.o.Progress); err != nil {
			return nil, err
		}
		op.ns, op.nsMissing, op.existing, op.furnished = nil, true, nil, false
		op.missing = op.c.missingRights(ctx, op.namespace, true)
		return nil, errGoing
	}
	if e := op.existing; e != nil {
		if e.DeletionTimestamp != nil {
			op.o.Progress("waiting for the former environment to be gone")
			op.existing = nil
			if err := op.c.deploymentGone(ctx, e.Namespace, e.Name, e.UID, op.o.Progress); err != nil {
				return nil, err
			}
			return nil, errGoing
		}
		if t, err := time.Parse(time.RFC3339, e.Annotations[annCreated]); err == nil {
			created = t
		}
	}
	bp := blueprint{spec: op.spec, namespace: op.namespace, template: op.template, container: op.container, image: op.image,
		base: op.o.Image, payload: op.payload.digest, created: created, adapt: op.adapt()}
	if op.isolated {
		bp.staging = op.staging
	}
	cp, err := op.copies(ctx, &bp)
	if err != nil {
		return nil, err
	}
	d, notes := bp.deployment()
	same := op.existing != nil && op.existing.Annotations[annShape] == d.Annotations[annShape] &&
		op.existing.Spec.Replicas != nil && *op.existing.Spec.Replicas == 1
	missing := op.missing
	if same {
		missing = slices.DeleteFunc(slices.Clone(missing), func(d denial) bool { return !usesOnly(d) })
	}
	if len(missing) > 0 {
		return nil, together(missing)
	}
	if same {
		if err := op.furnish(ctx); err != nil {
			return nil, err
		}
	}
	w := wants{namespace: op.namespace, name: op.spec.Name, main: bp.mainContainer(), shape: d.Annotations[annShape], tell: op.o.Progress}
	if same {
		if pods, err := op.c.kube.CoreV1().Pods(op.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelEnvironment + "=" + op.spec.Name}); err == nil {
			if v := assess(op.existing, pods.Items, w); v.pod != nil {
				if err := cp.wake(ctx, op.existing, false); err != nil {
					return nil, err
				}
				if err := cp.finish(ctx); err != nil {
					return nil, err
				}
				d, err := op.record(ctx, op.existing)
				if err != nil {
					return nil, err
				}
				op.tidy(ctx, cp)
				return op.environment(ctx, d, v.pod)
			}
		}
	} else {
		for _, n := range notes {
			op.o.Progress(n)
		}
		if err := op.prepare(ctx); err != nil {
			return nil, err
		}
	}
	if e := op.existing; e != nil && !same && len(cp.fresh) > 0 && e.Annotations[annShape] != shapeAnchor {
		if _, awake := rests(e); awake {
			// It runs, and goes on as it is until its copies are ready: one that never gets so costs it nothing.
			if err := cp.wake(ctx, e, false); err != nil {
				return nil, err
			}
			if err := cp.finish(ctx); err != nil {
				return nil, err
			}
		} else {
			op.restore = true
		}
	}
	made, err := op.put(ctx, d, same)
	if err != nil {
		return nil, err
	}
	if err := cp.wake(ctx, made, true); err != nil {
		return nil, err
	}
	// The copies get ready while the pod starts. One that never can ends the wait for the pod, and the other way round.
	wctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ready := make(chan error, 1)
	go func() {
		err := cp.finish(wctx)
		if err != nil {
			stop(err)
		}
		ready <- err
	}()
	pod, err := op.c.pod(wctx, w)
	if err != nil {
		cause := context.Cause(wctx)
		stop(err)
		<-ready
		if cause != nil && ctx.Err() == nil {
			return nil, cause
		}
		return nil, op.c.withLines(ctx, w, err)
	}
	if err := <-ready; err != nil {
		return nil, err
	}
	op.tidy(ctx, cp)
	return op.environment(ctx, made, pod)
}

// copies makes what is to be fresh, and tells the blueprint where it is. Without any it does nothing.
func (op *opening) copies(ctx context.Context, bp *blueprint) (*copying, error) {
	if len(op.around.fresh()) == 0 && (op.existing == nil || len(op.around.own) == 0) {
		return &copying{op: op}, nil
	}
	images := op.digests(ctx)
	defer images()
	owner := op.existing
	if owner == nil {
		if len(op.missing) > 0 {
			return nil, together(op.missing)
		}
		if err := op.prepare(ctx); err != nil {
			return nil, err
		}
		d, _ := bp.deployment()
		d.Spec.Replicas = new(int32(0))
		d.Annotations[annShape] = shapeAnchor
		var err error
		if owner, err = op.apply(ctx, d); err != nil {
			return nil, err
		}
		if owner, err = op.record(ctx, owner); err != nil {
			return nil, err
		}
		op.anchor = owner
	} else if err := op.furnish(ctx); err != nil { // what their pods name has to be there first
		return nil, err
	}
	cp, err := op.startCopies(ctx, owner, images)
	if err != nil {
		return nil, err
	}
	if err := cp.workloads(ctx); err != nil {
		return nil, err
	}
	bp.fresh, bp.aliases = cp.names(), cp.aliases
	return cp, nil
}

// tidy removes copies that are no longer wanted, now that no pod looks for them. What is left then is still known by its
// Services, and the next Open or the environment's deletion takes it.
func (op *opening) tidy(ctx context.Context, cp *copying) {
	if cp.env.Name == "" || len(op.around.own) == 0 {
		return
	}
	if err := op.c.discard(ctx, cp.env, cp.wanted, op.o.Progress); err != nil {
		op.o.Progress("a copy that is no longer wanted is left: " + oneLine(err.Error()))
	}
}

// prepare brings about what the Deployment needs: its namespace, and the image in the registry.
func (op *opening) prepare(ctx context.Context) error {
	var wg sync.WaitGroup
	var nsErr, pushErr error
	switch {
	case op.nsMissing:
		op.o.Progress("making namespace " + op.namespace)
		wg.Go(func() {
			n, err := op.c.makeNamespace(ctx, op.namespace, op.spec.Name, op.like())
			nsErr = err
			if n != nil {
				op.undoLater(func(ctx context.Context) error {
					return op.c.kube.CoreV1().Namespaces().Delete(ctx, n.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &n.UID}})
				})
			}
			op.nsMissing = false
		})
	case op.ns != nil && op.ns.Annotations[annMadeFor] == op.spec.Name && op.ns.Annotations[annMadeUID] == "":
		wg.Go(func() { nsErr = op.c.recordNamespace(ctx, op.ns) })
	case op.ns != nil && madeByUs(op.ns):
		wg.Go(func() {
			if nsErr = op.c.touchNamespace(ctx, op.ns); op.meanwhile(nsErr) {
				nsErr = errGoing
			} else {
				nsErr = op.c.explain("use namespace "+op.ns.Name, nsErr)
			}
		})
	}
	if op.unpushed != nil {
		op.o.Progress("pushing the supervisor's image to " + op.registry.address)
		wg.Go(func() {
			if _, pushErr = op.registry.write(ctx, op.payload, op.unpushed); pushErr == nil {
				op.unpushed = nil
			}
		})
	}
	wg.Wait()
	if nsErr == errGoing && pushErr == nil {
		return op.again(ctx)
	}
	if err := first(nsErr, pushErr); err != nil {
		return err
	}
	return op.furnish(ctx)
}

// put applies Deployment and Secret. With same the Deployment is as it should be, and only the Secret may lack.
func (op *opening) put(ctx context.Context, d *appsv1.Deployment, same bool) (*appsv1.Deployment, error) {
	made := op.existing
	var err error
	if !same {
		if made, err = op.apply(ctx, d); err != nil {
			return nil, err
		}
	}
	if made, err = op.record(ctx, made); err != nil {
		return nil, err
	}
	// After the Deployment, so that it can be owned by it and is never left alone. The pod gets that far later.
	name := secretName(op.spec)
	_, err = op.c.kube.CoreV1().Secrets(d.Namespace).Apply(ctx, coreac.Secret(name, d.Namespace).
		WithLabels(d.Labels).WithType(corev1.SecretTypeOpaque).WithImmutable(true).
		WithData(map[string][]byte{tokenKey: []byte(op.spec.Token)}).
		WithOwnerReferences(metaac.OwnerReference().WithAPIVersion("apps/v1").WithKind("Deployment").WithName(made.Name).WithUID(made.UID)),
		metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return nil, op.c.explain("make the environment's Secret", err)
	}
	if op.existing == nil {
		op.undoLater(func(ctx context.Context) error {
			return op.c.kube.CoreV1().Secrets(made.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
		})
	} else if old := newEnvironment(op.c, op.o, op.existing); old.secret != name {
		if err := old.deleteSecret(ctx); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// apply brings the Deployment about.
func (op *opening) apply(ctx context.Context, d *appsv1.Deployment) (*appsv1.Deployment, error) {
	ac, err := applied(d)
	if err != nil {
		return nil, err
	}
	// The UID makes it a change of the very Deployment that was looked at.
	switch {
	case op.anchor != nil:
		ac.WithUID(op.anchor.UID)
	case op.existing != nil:
		ac.WithUID(op.existing.UID)
		op.o.Progress("replacing the pod: " + whyReplaced(op.existing, d))
	default:
		op.o.Progress("making environment " + d.Name + " in namespace " + d.Namespace)
	}
	made, err := op.c.kube.AppsV1().Deployments(d.Namespace).Apply(ctx, ac, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if op.meanwhile(err) {
		return nil, op.again(ctx)
	}
	if isNotFound(err) {
		return nil, &api.Problem{Code: "no-namespace", Message: "there is no namespace " + d.Namespace,
			Hint: "choose another with --namespace, or have it made"}
	}
	if err != nil {
		return nil, op.c.explain("make Deployment "+d.Name, err)
	}
	if op.existing == nil && op.anchor == nil {
		op.undoLater(func(ctx context.Context) error {
			return op.c.kube.AppsV1().Deployments(made.Namespace).Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID}})
		})
	}
	if op.restore {
		op.undoLater(op.putBack)
	}
	return made, nil
}

// putBack makes an environment again what it was before this Open: its pod would look for copies that are gone.
func (op *opening) putBack(ctx context.Context) error {
	was := op.existing
	ds := op.c.kube.AppsV1().Deployments(was.Namespace)
	for range ensureTries {
		now, err := ds.Get(ctx, was.Name, metav1.GetOptions{})
		if err != nil || now.UID != was.UID {
			return err
		}
		now.Spec, now.Annotations = *was.Spec.DeepCopy(), was.Annotations
		now, err = ds.Update(ctx, now, metav1.UpdateOptions{FieldManager: fieldManager})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return err
		}
		return op.c.follow(ctx, now)
	}
	return fmt.Errorf("put environment %s back: others change it all the time", was.Name)
}

// whyReplaced says what is different, as far as the annotations tell.
func whyReplaced(was, is *appsv1.Deployment) string {
	switch {
	case was.Annotations[annShape] == shapeAnchor:
		return "its making was broken off"
	case was.Spec.Replicas != nil && *was.Spec.Replicas == 0:
		return "it was scaled to zero"
	case was.Annotations[annPayload] != is.Annotations[annPayload]:
		return fmt.Sprintf("it has another version of the supervisor (%s, wanted is %s)", was.Annotations[annVersion], is.Annotations[annVersion])
	case was.Annotations[annTemplate] != is.Annotations[annTemplate]:
		return "it was made after another Deployment"
	case was.Annotations[annFresh] != is.Annotations[annFresh]:
		if is.Annotations[annFresh] == "" {
			return "its dependencies are shared again"
		}
		return "its fresh dependencies are now " + strings.ReplaceAll(is.Annotations[annFresh], ",", ", ")
	case was.Annotations[annTemplate] != "":
		return "the staging Deployment or the settings have changed"
	}
	return "the settings have changed"
}

// unmake removes what a failed Open made, newest first. It goes on when ctx has ended: that may be why it failed.
func (op *opening) unmake(ctx context.Context) {
	if len(op.undo) == 0 {
		return
	}
	op.o.Progress("removing what was made")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	for _, f := range slices.Backward(op.undo) {
		if err := f(ctx); err != nil && !isNotFound(err) {
			op.o.Logger.Warn("remove what a failed start made", "error", err)
			op.o.Progress("something of the environment is left; the next fairlead run completes it, fairlead stop removes it: " + oneLine(err.Error()))
		}
	}
}

// environment is the handle on what is there now.
func (op *opening) environment(ctx context.Context, d *appsv1.Deployment, pod *corev1.Pod) (*Environment, error) {
	e := newEnvironment(op.c, op.o, d)
	e.info.Resumed = op.existing != nil
	e.info.Pod = pod.Name
	e.wishes, e.listed = op.spec.Dependencies, op.spec.Registered
	e.target = api.Target{OS: "linux", Arch: op.arch(ctx, pod)}
	if e.target.Arch != "amd64" && e.target.Arch != "arm64" {
		return nil, unsupportedArch(fmt.Sprintf("node %s is %s/%s", pod.Spec.NodeName, e.target.OS, e.target.Arch))
	}
	return e, nil
}

// arch is the node's. Few may look at nodes; without, it is what the template asks for, or the usual one.
func (op *opening) arch(ctx context.Context, pod *corev1.Pod) string {
	ctx, cancel := context.WithTimeout(ctx, nodeLimit)
	defer cancel()
	if n, err := op.c.kube.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{}); err == nil && n.Status.NodeInfo.Architecture != "" {
		return n.Status.NodeInfo.Architecture
	}
	if _, arch := platform(&pod.Spec); arch != "" {
		return arch
	}
	return "amd64"
}

// process tells how the staging Deployment starts the service.
func (op *opening) process(ctx context.Context) (api.Process, []string) {
	if op.template == nil {
		return api.Process{}, nil
	}
	pod := &op.template.Spec.Template.Spec
	tc := container(pod, op.container)
	return process(ctx, tc, func(ctx context.Context) (*v1.Config, error) {
		_, arch := platform(pod)
		if arch == "" {
			arch = "amd64"
		}
		return imageConfig(ctx, op.o, tc.Image, arch)
	})
}

// asProblem is the Problem in an error, or one made of it.
func asProblem(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return &api.Problem{Code: "cluster-error", Message: oneLine(err.Error())}
}
