package kube

import (
	"errors"
	"testing"

	"fairlead.dev/api"
)

// A container that ends under a dial is told from a connection that is lost, by the words of kubelet and the runtimes.
func TestReason(t *testing.T) {
	for said, gone := range map[string]bool{
		`unable to upgrade connection: container not found ("service")`:                                                                                                                                      true,
		`Internal error occurred: error executing command in container: failed to exec in container: failed to create exec "77": cannot exec in a deleted state`:                                             true,
		`Internal error occurred: error executing command in container: failed to exec in container: failed to create exec "77": cannot exec in a stopped state`:                                             true,
		`Internal error occurred: error executing command in container: failed to exec in container: failed to load task: no running task found: task 77 not found`:                                          true,
		`Internal error occurred: error executing command in container: failed to exec in container: container is in CONTAINER_EXITED state`:                                                                 true,
		`rpc error: code = NotFound desc = an error occurred when try to find container "77": not found`:                                                                                                     true,
		`Internal error occurred: error executing command in container: failed to exec in container: failed to start exec "77": OCI runtime exec failed: exec failed: cannot exec in a stopped container`:    true,
		`Internal error occurred: error executing command in container: failed to exec in container: failed to start exec "77": OCI runtime exec failed: exec failed: procReady not received: unknown`:       true,
		`Internal error occurred: error executing command in container: container is not created or running`:                                                                                                 true,
		`Internal error occurred: error executing command in container: container not running (77)`:                                                                                                          true,
		`Internal error occurred: error executing command in container: failed to exec in container: failed to start exec "77": OCI runtime exec failed: exec failed: exec: "/x": no such file or directory`: false,
		`websocket: close 1006 (abnormal closure): unexpected EOF`:                                                                                                                                           false,
	} {
		err := (&stream{pod: "web-1"}).reason(&client{}, errors.New(said))
		var p *api.Problem
		if !errors.As(err, &p) || isPodGone(err) != gone || !gone && p.Code != api.CodeLost {
			t.Errorf("%s:\n%v, gone: %v, want %v", said, err, isPodGone(err), gone)
		}
	}
}
