// Package dependency finds what a service on Kubernetes depends on, and draws fresh copies of it. It is pure: typed
// objects go in, values and objects come out, and it asks no API server.
//
// A dependency is a Service with the workload behind it. It is found by the values that name its host: environment
// variables, arguments and ConfigMaps of the service's own Deployment. Secrets are never read, so what only they say must
// be declared. Found twice by two Services, one workload is one dependency, since two copies of it would not have the same
// data.
//
// A copy has names, labels and a selector of its own, and belongs to the environment's Deployment by an owner reference.
// The names of the original lead to it by hostAliases of the pods that shall reach it: their variables stay as they are.
// ConfigMaps and Secrets are referenced and not copied. They are in the same namespace, and to copy a Secret is to read
// it, which Fairlead never asks for.
package dependency
