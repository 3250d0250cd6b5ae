package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"fairlead.dev/test/freeport"
)

// tiny is a service of the standard library alone. Its answer at /version is a constant in version.go, beside it a
// thing to be embedded.
const tiny = `package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	port := flag.Int("port", 8080, "")
	ignore := flag.Bool("ignore-term", false, "")
	drain := flag.Duration("drain", 0, "")
	fork := flag.Bool("fork", false, "")
	sleep := flag.Bool("sleep", false, "")
	count := flag.Bool("count", false, "")
	flag.Parse()
	for i := 0; *count; i++ {
		fmt.Println("count", i)
		time.Sleep(5 * time.Millisecond)
	}
	if *sleep { // what -fork leaves behind
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		time.Sleep(time.Hour)
	}
	term := make(chan os.Signal, 1)
	if *ignore {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	} else {
		signal.Notify(term, syscall.SIGTERM)
	}
	if *fork {
		c := exec.Command("/proc/self/exe", "-sleep")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			panic(err)
		}
		fmt.Println("forked", c.Process.Pid)
	}
	fmt.Println("starting", version)
	http.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, version) })
	http.HandleFunc("/pid", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getpid()) })
	http.HandleFunc("/args", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Join(os.Args[1:], " ")) })
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.FormValue("name"))) })
	http.HandleFunc("/fetch", func(w http.ResponseWriter, r *http.Request) {
		res, err := http.Get(r.FormValue("url"))
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		defer res.Body.Close()
		io.Copy(w, res.Body)
	})
	http.HandleFunc("/say", func(w http.ResponseWriter, r *http.Request) { fmt.Println(r.FormValue("text")) })
	http.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		mb, _ := strconv.Atoi(r.FormValue("mb")) // a second
		line := strings.Repeat("x", 199) + "\n"
		block := []byte(strings.Repeat(line, 1000)) // 200 KB
		d, _ := time.ParseDuration(r.FormValue("for"))
		go func() {
			every := time.Second / time.Duration(mb*5)
			start := time.Now()
			for n := 0; time.Since(start) < d; n++ {
				if wait := time.Duration(n)*every - time.Since(start); wait > 0 {
					time.Sleep(wait)
				}
				os.Stdout.Write(block)
			}
			fmt.Println("flood is over")
		}()
	})
	go func() {
		<-term
		time.Sleep(*drain)
		os.Exit(0)
	}()
	panic(http.ListenAndServe(":"+strconv.Itoa(*port), nil))
}
`

// service is a folder with a Go service that a test edits.
type service struct {
	dir     string
	version string // the file that holds it
}

// newTiny writes the small service. Its name is part of what tells processes apart.
func newTiny(t testing.TB, version string) *service {
	t.Helper()
	s := &service{dir: filepath.Join(t.TempDir(), "tiny")}
	s.version = filepath.Join(s.dir, "version.go")
	write(t, filepath.Join(s.dir, "go.mod"), "module example.com/tiny\n\ngo 1.26\n")
	write(t, filepath.Join(s.dir, "main.go"), tiny)
	s.edit(t, version)
	return s
}

// newShop copies the large service of the project's own.
func newShop(t testing.TB, version string) *service {
	t.Helper()
	from := filepath.Join(moduleDir(), "test", "fixture", "shop")
	s := &service{dir: filepath.Join(t.TempDir(), "shop")}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err == nil {
			write(t, filepath.Join(s.dir, rel), string(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.version = filepath.Join(s.dir, "internal", "version", "version.go")
	s.edit(t, version)
	return s
}

func write(t testing.TB, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// edit changes what the service answers at /version.
func (s *service) edit(t testing.TB, version string) {
	t.Helper()
	write(t, s.version, s.source(version))
}

func (s *service) source(version string) string {
	if filepath.Base(filepath.Dir(s.version)) == "version" {
		return fmt.Sprintf("// Package version names the release.\npackage version\n\n// Version is answered.\nconst Version = %q\n", version)
	}
	return fmt.Sprintf("package main\n\nconst version = %q\n", version)
}

// port is one that is free on this machine. On a cluster every pod has all of them.
func (p *place) port(t testing.TB) string {
	t.Helper()
	if p.c != nil {
		return "8080"
	}
	return freeport.Get(t)
}
