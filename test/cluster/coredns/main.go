// Command coredns answers the names of services and pods in the test cluster.
//
// It carries only the plugins that the cluster's own configuration uses: the
// stock set brings several cloud vendors' libraries and doubles the build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// A plugin acts in the order of this list, not in that of the
	// configuration; one missing here is rejected there as unknown.
	dnsserver.Directives = []string{"bind", "health", "ready", "errors", "log", "template", "kubernetes"}
	coremain.Run()
}
