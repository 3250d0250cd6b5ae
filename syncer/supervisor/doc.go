// Package supervisor is the pod's side of Fairlead: the first process of the pod. It stages and verifies what the agent
// sends, swaps it in, starts, stops and watches the service's process, keeps what it writes, finds the ports it listens
// on, and stands between the tunnel and the service so that a request that comes during a swap waits instead of failing.
//
// It always owns the service's process; a debugger, Delve in a process of its own (folder delve), only attaches to it. To
// be debugged from its first instruction a process is started stopped, beside the one that serves, and has its turn once
// its symbols are read. Whatever becomes of a debugger, the service goes on.
//
// It must not know how it is reached (bridge serves it), nor Kubernetes, nor who watches files. It links no Kubernetes
// client and no watcher: its imports are a security statement.
package supervisor
