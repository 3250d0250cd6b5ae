// The services that tests edit: small ones of the standard library alone, each a git repository.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const main = (port) => `package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"
)

const greeting = "hello"

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	http.HandleFunc("/", answer)
	http.HandleFunc("/flood", flood)
	http.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { go boom() })
	slog.Info("listening", "port", ${port})
	if err := http.ListenAndServe(":${port}", nil); err != nil {
		slog.Error("serve", "err", err)
		os.Exit(1)
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	slog.Info("answered", "path", r.URL.Path, "from", "main.go:29")
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprintf(w, "<title>greeter</title><h1>%s</h1>", greeting)
}

func boom() {
	var m map[string]int
	m["x"]++
}

// flood writes as many lines as it is asked for, a few of them warnings.
func flood(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("lines"))
	start := time.Now()
	for i := range n {
		if i%1000 == 999 {
			slog.Warn("slow line", "n", i, "at", "main.go:43")
			continue
		}
		slog.Info("line", "n", i)
	}
	slog.Error("flood is over", "n", n, "at", "main.go:48", "ms", time.Since(start).Milliseconds())
}
`;

/** debugged is the main.go of a service to debug: what it answers is in a local variable, above the line that answers. */
export const debugged = (port) => `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", answer)
	fmt.Println("listening on ${port}")
	panic(http.ListenAndServe(":${port}", nil))
}

func answer(w http.ResponseWriter, r *http.Request) {
	n := 1
	where := r.URL.Path
	fmt.Fprintf(w, "%s says %d", where, n)
}
`;

/** aTest is a main_test.go beside it. */
export const aTest = `package main

import "testing"

func TestTwice(t *testing.T) {
	twice := 2 * 21
	t.Log(twice)
}
`;

/** writeService makes the folder of a service that listens on port, as a git repository with one commit. */
export function writeService(dir, { port, name = 'greeter', yaml, files = {} } = {}) {
	fs.mkdirSync(dir, { recursive: true });
	fs.writeFileSync(path.join(dir, 'go.mod'), `module example.com/${name}\n\ngo 1.24\n`);
	fs.writeFileSync(path.join(dir, 'main.go'), main(port));
	if (yaml) fs.writeFileSync(path.join(dir, 'fairlead.yaml'), yaml);
	for (const [f, text] of Object.entries(files)) {
		fs.mkdirSync(path.dirname(path.join(dir, f)), { recursive: true });
		fs.writeFileSync(path.join(dir, f), text, { mode: text.startsWith('#!') ? 0o755 : 0o644 });
	}
	commit(dir);
}

export function commit(dir) {
	const git = (...args) => execFileSync('git', ['-C', dir, '-c', 'user.name=test', '-c', 'user.email=test@example.com', '-c', 'init.defaultBranch=main', ...args], { stdio: 'pipe' });
	git('init', '-q');
	git('add', '.');
	git('commit', '-q', '-m', 'first');
}
