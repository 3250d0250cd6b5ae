// Package kube makes, finds and deletes environments on Kubernetes, and dials them. It owns everything that is said to
// an API server or to an image registry: which namespace, what the pod looks like, which rights it takes, how long it
// waits and why, and the exec stream that carries the connection.
//
// An environment is one Deployment with one pod, and one Secret that the Deployment owns. The pod is like the staging
// Deployment's, with three differences: its labels are ours alone, so that no staging Service sends it requests; the
// service's container runs fairlead-pod, which an init container copied into an emptyDir; and its probes go through
// fairlead-pod. Nothing that does not carry our labels is ever changed or deleted, and no Deployment whose recorded UID
// is another's. Where that is allowed it has a namespace of its own, which package isolation draws, and in which staging's
// names resolve. How long an unused one stays is decided in package lease and done by package janitor.
//
// Its dependencies are found by package dependency. Of those that are wanted fresh it has copies, which the Deployment
// owns: first Services, for their addresses, which the pods' hosts files have under the originals' names; then claims and
// workloads. To be killed between any two steps leaves what the next Open completes, or the Deployment's deletion takes.
//
// Who follows an environment of another (Join) finds it by its name and asks its pod for the token, over the exec stream that he
// needs anyway.
//
// It must not know what is said over a dialled stream (bridge), what is built or shipped (syncer), nor who asks (server,
// cmd). No other package imports k8s.io or go-containerregistry.
//
// Goroutines: those that an exported function starts end before it returns, save the one of each dialled stream, which
// ends with its Close.
package kube

// The names that this package gives on a cluster.
const (
	prefix = "fairlead.dev/"

	// Labels, of Deployment, pod and Secret.
	labelEnvironment = prefix + "environment" // the environment's name; also the Deployment's selector
	labelService     = prefix + "service"
	labelOwner       = prefix + "owner" // a hash: "user@host" is no label value

	// Annotations of the Deployment.
	annOwner    = prefix + "owner"
	annBranch   = prefix + "branch"
	annDir      = prefix + "dir"
	annCreated  = prefix + "created" // RFC 3339
	annVersion  = prefix + "version" // of the agent that last changed it
	annTemplate = prefix + "template"
	annPayload  = prefix + "payload" // digest of what the supervisor's image was made of
	annFresh    = prefix + "fresh"   // names of the dependencies that it has copies of
	annShape    = prefix + "shape"   // digest of the Deployment's spec as we wrote it; on the pod too

	// Annotations of a namespace that we made. annMadeUID holds the namespace's own UID: a copy of the namespace
	// (a backup that was restored, a manifest that was exported) carries the annotation but not the UID.
	annMadeFor = prefix + "made-for"
	annMadeUID = prefix + "made-uid"
	annOpened  = prefix + "opened" // a random value, new whenever an environment is made in it

	// shapeAnchor is the shape of a Deployment that has no pod yet and owns the copies of dependencies.
	shapeAnchor = "anchor"

	fieldManager = "fairlead"

	// Paths in the pod.
	binDir    = "/fairlead"
	podBinary = "/fairlead/bin/fairlead-pod"
	workDir   = "/fairlead/work"
	podSocket = "/fairlead/work/pod.sock"
	tokenDir  = "/fairlead-token"
	tokenKey  = "token"
	tokenFile = tokenDir + "/" + tokenKey

	installContainer = "fairlead-install"
)
