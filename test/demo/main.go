// Command demo shows the main job on the embedded default: it runs `fairlead run` in a copy of examples/hello, asks the
// service, edits it, and asks again. It needs Go and nothing else, and leaves nothing behind.
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/api"
)

func main() {
	fairlead := flag.String("fairlead", "bin/fairlead", "the `executable` to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := demo(ctx, *fairlead); err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, fairlead string) error {
	dir, err := os.MkdirTemp("", "fairlead-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS("examples/hello")); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "fairlead.yaml"), fmt.Appendf(nil, "version: 1\nenv: {PORT: \"%d\"}\n", port), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, fairlead, "run", "--json", dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	fmt.Println("$ fairlead run        # in a copy of examples/hello")
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	err = follow(out, dir, start)
	cmd.Process.Signal(syscall.SIGINT)
	io.Copy(io.Discard, out)
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	if err == nil {
		fmt.Println("The environment is gone again. Now try it on a service of yours: bin/fairlead run")
	}
	return err
}

// follow edits at the first ready and ends at the second.
func follow(out io.Reader, dir string, start time.Time) error {
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, 1<<20)
	var saved time.Time
	for sc.Scan() {
		e, err := api.DecodeEvent(sc.Bytes())
		if err != nil {
			return err
		}
		switch e := e.(type) {
		case *api.BuildEvent:
			fmt.Printf("  built generation %d in %d ms\n", e.Generation, e.MS)
		case *api.ProblemEvent:
			return fmt.Errorf("%s", e.Problem.Error())
		case *api.LogEvent:
			fmt.Println("  |", e.Text)
		case *api.ReadyEvent:
			answer, err := get(e.URL)
			if err != nil {
				return err
			}
			if saved.IsZero() {
				fmt.Printf("  live at %s after %d ms: %q\n", e.URL, time.Since(start).Milliseconds(), answer)
				fmt.Println("$ sed -i s/Hello/Ahoy/ main.go")
				saved = time.Now()
				if err := edit(filepath.Join(dir, "main.go")); err != nil {
					return err
				}
				continue
			}
			fmt.Printf("  live %d ms after the save: %q\n", time.Since(saved).Milliseconds(), answer)
			if !strings.HasPrefix(answer, "Ahoy") {
				return fmt.Errorf("the new code is not live: %q", answer)
			}
			return nil
		}
	}
	return fmt.Errorf("fairlead ended before the service was live: %v", sc.Err())
}

func edit(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes.Replace(b, []byte(`"Hello"`), []byte(`"Ahoy"`), 1), 0o644)
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(b)), err
}
