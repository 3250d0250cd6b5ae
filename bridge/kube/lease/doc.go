// Package lease decides how long an unused environment on Kubernetes stays, and writes what that is decided on. What is
// known of an environment's use stands on its Deployment, so it outlives the machine that used it, and needs no right
// that an environment does not take anyway.
//
// # Whose clock
//
// No laptop's. A use is a write of a new value under a field manager of its own; the API server itself stamps that
// manager's entry in managedFields, to the second. What time it is now is the Date header of the API server's answers
// (Clock). A laptop whose clock is wrong, or jumps, changes nothing.
//
// # The decision
//
// Decide is pure. An environment that is unused for Policy.Sleep is put to sleep: scaled to zero. One that has slept for
// Policy.Delete is deleted. Before each comes a warning. Keep goes before both until its time. What cannot be read is
// kept, and said.
//
// # The act
//
// Sleep is a patch, and deletion a request, that names UID and resource version of the very object that was decided on: a
// use in between makes it fail, and it is decided again.
//
// The package must not know what an environment consists of, nor how it is deleted (bridge/kube).
package lease

const (
	prefix = "fairlead.dev/"

	// MadeUID is the annotation with a Deployment's own UID. A copy has the annotation, and another UID.
	MadeUID = prefix + "made-uid"

	annUsed        = prefix + "used"       // a random value, new at each use
	annUsedWhy     = prefix + "used-why"   // what the last use was, in words
	annKeepUntil   = prefix + "keep-until" // RFC 3339
	annAsleepSince = prefix + "asleep-since"
	annSleepAfter  = prefix + "sleep-after" // a duration, or "never"
	annDeleteAfter = prefix + "delete-after"

	// The field managers. managerOpen is bridge/kube's: making or changing an environment is a use of it.
	managerUse     = "fairlead-lease"
	managerKeep    = "fairlead-keep"
	managerJanitor = "fairlead-janitor"
	managerOpen    = "fairlead"

	never = "never"
)
