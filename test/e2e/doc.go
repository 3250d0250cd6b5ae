// Package e2e tests Fairlead from outside: it drives the real fairlead with --json in real services, on this machine and
// on a real Kubernetes, breaks what can break on the way, and checks after each fault that exactly the last good build
// runs. It must not know how anything is done inside; the module's api is all it imports of Fairlead.
//
// The cluster is the one that FAIRLEAD_TEST_KUBECONFIG and FAIRLEAD_TEST_REGISTRY name (test/cluster makes it). A test
// that lacks something is skipped with its reason; with CI=true that is a failure. FAIRLEAD_TEST_BIN and
// FAIRLEAD_PAYLOAD name a fairlead and its payload of the same version that were built before; without them both are
// built.
package e2e
