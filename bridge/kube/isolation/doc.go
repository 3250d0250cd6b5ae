// Package isolation draws what an environment in a namespace of its own has beside its pods: the namespace, a quota, a
// network policy, service accounts without rights, and copies of the ConfigMaps and Secrets that its pods name. It also
// says what is different in such a pod, so that the names of staging resolve in it.
//
// It is pure: it must not talk to a cluster (bridge/kube does), nor know how a pod becomes an environment's.
package isolation
