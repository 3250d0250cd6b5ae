// Command etcd is the store of the test cluster, unchanged. It exists so that
// a module of the project's own pins the version and its checksums.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
