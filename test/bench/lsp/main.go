// Command lsp measures the language server as an editor has it: the real program on pipes. It writes JSON: how long from
// the process's start to the answer to initialize, and how long a code action takes in a workspace of 5,000 files, asked
// for after every keystroke. It fails where a promise is not kept (50 ms; 10 ms for 99 %).
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
)

type spread struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func spreadOf(ds []time.Duration) spread {
	slices.Sort(ds)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return spread{len(ds), ms(ds[len(ds)/2]), ms(ds[len(ds)*99/100]), ms(ds[len(ds)-1])}
}

func main() {
	bin := flag.String("bin", "bin/fairlead", "the program to measure")
	starts := flag.Int("starts", 100, "how often it is started")
	files := flag.Int("files", 5000, "files in the workspace")
	requests := flag.Int("requests", 5000, "code actions asked for")
	flag.Parse()
	if err := run(*bin, *starts, *files, *requests); err != nil {
		fmt.Fprintln(os.Stderr, "bench-lsp:", err)
		os.Exit(1)
	}
}

func run(bin string, starts, files, requests int) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp("", "fl-bl-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	env := append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+filepath.Join(home, "run"), "XDG_STATE_HOME="+filepath.Join(home, "state"), "XDG_CACHE_HOME="+filepath.Join(home, "cache"), "XDG_CONFIG_HOME="+home)
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		return err
	}
	defer func() {
		stop := exec.Command(bin, "agent", "stop", "--force")
		stop.Env = env
		stop.Run()
	}()
	ws := filepath.Join(home, "ws")
	if err := workspace(ws, files); err != nil {
		return err
	}

	var start []time.Duration
	for range starts {
		began := time.Now()
		s, err := begin(bin, env, ws)
		if err != nil {
			return err
		}
		start = append(start, time.Since(began))
		s.end()
	}

	s, err := begin(bin, env, ws)
	if err != nil {
		return err
	}
	defer s.end()
	if err := s.send("initialized", 0, map[string]any{}); err != nil {
		return err
	}
	doc := func(i int) string { return "file://" + filepath.ToSlash(filepath.Join(ws, name(i))) }
	// Every hundredth file is a main package; a person has some open.
	const open = 50
	for i := range open {
		text, err := os.ReadFile(filepath.Join(ws, name(i*files/open)))
		if err != nil {
			return err
		}
		if err := s.send("textDocument/didOpen", 0, map[string]any{"textDocument": map[string]any{"uri": doc(i * files / open), "languageId": "go", "version": 1, "text": string(text)}}); err != nil {
			return err
		}
	}
	var action, lens []time.Duration
	found := 0
	at := func(line int) map[string]int { return map[string]int{"line": line, "character": 0} }
	for i := range requests {
		u := doc(i % open * files / open)
		if err := s.send("textDocument/didChange", 0, map[string]any{"textDocument": map[string]any{"uri": u, "version": i + 2},
			"contentChanges": []any{map[string]any{"range": map[string]any{"start": at(60), "end": at(60)}, "text": "// x\n"}}}); err != nil {
			return err
		}
		for method, into := range map[string]*[]time.Duration{"textDocument/codeAction": &action, "textDocument/codeLens": &lens} {
			began := time.Now()
			var answer []any
			if err := s.call(method, map[string]any{"textDocument": map[string]any{"uri": u}, "range": map[string]any{"start": at(4), "end": at(4)}, "context": map[string]any{"diagnostics": []any{}}}, &answer); err != nil {
				return err
			}
			*into = append(*into, time.Since(began))
			found += len(answer)
		}
	}
	if found < 2*requests*9/10 {
		return fmt.Errorf("only %d of %d requests had an answer", found, 2*requests)
	}
	result := struct {
		CPUs       int    `json:"cpus"`
		Files      int    `json:"files"`
		Initialize spread `json:"initialize_from_start"`
		CodeAction spread `json:"code_action"`
		CodeLens   spread `json:"code_lens"`
	}{runtime.NumCPU(), files, spreadOf(start), spreadOf(action), spreadOf(lens)}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(result); err != nil {
		return err
	}
	if result.Initialize.P50 > 50 || result.CodeAction.P99 > 10 {
		return fmt.Errorf("a promise is not kept: initialize within 50 ms, code actions within 10 ms (99 %%)")
	}
	return nil
}

func name(i int) string {
	if i%100 == 0 {
		return fmt.Sprintf("cmd/s%d/main.go", i)
	}
	return fmt.Sprintf("pkg/p%d/f%d.go", i/100, i)
}

// workspace makes a module of that many files, of a usual length.
func workspace(dir string, files int) error {
	for i := range files {
		pkg, fn := "main", "main"
		if i%100 != 0 {
			pkg, fn = fmt.Sprintf("p%d", i/100), fmt.Sprintf("F%d", i)
		}
		text := "package " + pkg + "\n\nimport \"fmt\"\n\nfunc " + fn + "() {\n"
		for j := range 200 {
			text += fmt.Sprintf("\tfmt.Println(\"line\", %d, %d)\n", i, j)
		}
		text += "}\n"
		p := filepath.Join(dir, name(i))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/ws\n\ngo 1.26\n"), 0o644)
}

// server is one language server on pipes.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	id  int
}

// begin starts one and returns when it has answered initialize.
func begin(bin string, env []string, ws string) (*server, error) {
	cmd := exec.Command(bin, "lsp")
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in, out: bufio.NewReader(out)}
	var result struct{ Capabilities map[string]any }
	err = s.call("initialize", map[string]any{"processId": os.Getpid(), "rootUri": "file://" + filepath.ToSlash(ws), "capabilities": map[string]any{}}, &result)
	if err == nil && len(result.Capabilities) == 0 {
		err = fmt.Errorf("no capabilities")
	}
	return s, err
}

func (s *server) end() {
	s.in.Close()
	s.cmd.Wait()
}

func (s *server) send(method string, id int, params any) error {
	m := map[string]any{"jsonrpc": "2.0", "method": method, "params": params}
	if id > 0 {
		m["id"] = id
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.in, "Content-Length: %d\r\n\r\n%s", len(b), b)
	return err
}

func (s *server) call(method string, params, result any) error {
	s.id++
	if err := s.send(method, s.id, params); err != nil {
		return err
	}
	for {
		h, err := textproto.NewReader(s.out).ReadMIMEHeader()
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(h.Get("Content-Length"))
		if err != nil {
			return err
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(s.out, body); err != nil {
			return err
		}
		var m struct {
			ID     *int
			Method string
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(body, &m); err != nil {
			return err
		}
		if m.Method != "" || m.ID == nil || *m.ID != s.id {
			continue
		}
		if m.Error != nil {
			return fmt.Errorf("%s: %s", method, m.Error)
		}
		return json.Unmarshal(m.Result, result)
	}
}
