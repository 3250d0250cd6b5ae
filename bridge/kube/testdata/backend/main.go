// Command backend is a dependency of the tests' service: it keeps what was posted last, and answers with it and with what
// another dependency keeps. With -crash it writes two lines and ends.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

func main() {
	crash := flag.Bool("crash", false, "end at once")
	never := flag.Bool("never", false, "never be ready")
	post := flag.String("post", "", "post a value to this address, and end")
	flag.Parse()
	if *crash {
		fmt.Println("reading the configuration")
		fmt.Println("no such table: accounts")
		os.Exit(3)
	}
	if *post != "" {
		r, err := http.Post("http://"+*post, "text/plain", strings.NewReader("seeded"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		r.Body.Close()
		return
	}
	var mu sync.Mutex
	kept := "empty"
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if *never {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && len(b) > 0 && string(b) != "get" && string(b) != "peer" {
			kept = string(b)
		}
		if peer := os.Getenv("PEER_URL"); string(b) == "peer" && peer != "" {
			res, err := http.Post(peer, "text/plain", strings.NewReader("get"))
			if err != nil {
				fmt.Fprintln(w, err)
				return
			}
			defer res.Body.Close()
			io.Copy(w, res.Body)
			return
		}
		fmt.Fprintln(w, kept)
	})
	fmt.Println(http.ListenAndServe(":8080", nil))
	os.Exit(1)
}
