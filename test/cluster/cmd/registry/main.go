// Command registry serves the images of the test cluster on a loopback
// address, over plain HTTP, which containerd accepts from loopback as it is.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"fairlead.dev/test/cluster/internal/registry"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:5000", "address to listen on")
	dir := flag.String("dir", "", "folder for blobs and manifests")
	pause := flag.String("pause", "", "program to push as the image pause:1")
	flag.Parse()
	if err := run(*listen, *dir, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "registry: error:", err)
		os.Exit(1)
	}
}

func run(listen, dir, pause string) error {
	h, err := registry.Open(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if pause != "" {
		// 65535 is nobody in particular: sandboxes need no rights.
		img, err := registry.Image(pause, "pause", "65535:65535")
		if err != nil {
			return err
		}
		if err := registry.Push(img, l.Addr().String()+"/pause:1"); err != nil {
			return err
		}
	}
	return <-served
}
