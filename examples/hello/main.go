// Command hello is a small service to try Fairlead on: run `fairlead run` in its folder, open the address that it
// prints, change the greeting below and save.
package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
)

const greeting = "Hello"

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8000"
	}
	http.HandleFunc("/{name...}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if name == "" {
			name = "world"
		}
		slog.Info("greeted", "name", name)
		fmt.Fprintf(w, "%s, %s!\n", greeting, name)
	})
	slog.Info("listening", "port", port)
	if err := http.ListenAndServe("127.0.0.1:"+port, nil); err != nil {
		slog.Error("serve", "err", err)
		os.Exit(1)
	}
}
