package editor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// plain is a scripted client that knows only the protocol's text.
type plain struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	mu      sync.Mutex
	id      int
	answers map[int]chan json.RawMessage
}

func startPlain(t *testing.T, m machine) *plain {
	t.Helper()
	cmd := exec.Command(m.program, "lsp")
	cmd.Dir, cmd.Env, cmd.Stderr = m.dir, m.env, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &plain{t: t, cmd: cmd, in: in, answers: map[int]chan json.RawMessage{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(bufio.NewReader(out))
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	})
	p.call("initialize", map[string]any{"processId": os.Getpid(), "rootUri": "file://" + m.dir, "capabilities": map[string]any{}})
	p.send(map[string]any{"jsonrpc": "2.0", "method": "initialized", "params": map[string]any{}})
	text, err := os.ReadFile(filepath.Join(m.dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	p.send(map[string]any{"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": map[string]any{"textDocument": map[string]any{"uri": m.uri(), "languageId": "go", "version": 1, "text": string(text)}}})
	return p
}

func (p *plain) read(in *bufio.Reader) {
	for {
		h, err := textproto.NewReader(in).ReadMIMEHeader()
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(h.Get("Content-Length"))
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		var m struct {
			ID     *int
			Method string
			Result json.RawMessage
			Error  json.RawMessage
		}
		if json.Unmarshal(body, &m) != nil || m.Method != "" || m.ID == nil {
			continue
		}
		if m.Error != nil {
			m.Result = m.Error
		}
		p.mu.Lock()
		c := p.answers[*m.ID]
		p.mu.Unlock()
		if c != nil {
			c <- m.Result
		}
	}
}

func (p *plain) send(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.in, "Content-Length: %d\r\n\r\n%s", len(b), b)
}

func (p *plain) call(method string, params any) string {
	p.t.Helper()
	p.mu.Lock()
	p.id++
	id, c := p.id, make(chan json.RawMessage, 1)
	p.answers[id] = c
	p.mu.Unlock()
	p.send(map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	select {
	case r := <-c:
		return string(r)
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s was not answered", method)
	}
	return ""
}

func (p *plain) lenses(m machine) string {
	return p.call("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": m.uri()}})
}

func (m machine) uri() string { return "file://" + filepath.Join(m.dir, "main.go") }

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	began := time.Now()
	for deadline := time.After(60 * time.Second); !cond(); {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("timeout: %s", what)
		}
	}
	t.Logf("%s after %.2f s", what, time.Since(began).Seconds())
}

func (m machine) answers(text string) func() bool {
	return func() bool {
		c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := c.Get("http://127.0.0.1:" + m.port)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b) == text
	}
}

var rePID = regexp.MustCompile(`pid (\d+)`)

// The terminal and the editor share one environment, and nothing is lost when the agent or the editor crashes.
func TestShared(t *testing.T) {
	m := newMachine(t)
	terminal := func() *exec.Cmd {
		cmd := exec.Command(m.program, "run")
		cmd.Dir, cmd.Env = m.dir, m.env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	interrupt := func(cmd *exec.Cmd) {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
	}
	// What a terminal runs shows in the editor, without a button pressed, and so does its end.
	first := terminal()
	eventually(t, "live by the terminal", m.answers("one"))
	p := startPlain(t, m)
	eventually(t, "the editor shows it", func() bool { return strings.Contains(p.lenses(m), `"live`) })
	interrupt(first)
	eventually(t, "the editor shows its end", func() bool { return strings.Contains(p.lenses(m), "Run in environment") })

	// What the editor runs goes on when a terminal that joined it leaves.
	run := map[string]any{"command": "fairlead.run", "arguments": []any{map[string]any{"uri": m.uri()}}}
	if got := p.call("workspace/executeCommand", run); !strings.Contains(got, `"joined":false`) {
		t.Errorf("run: %s", got)
	}
	eventually(t, "live by the editor", m.answers("one"))
	second := terminal()
	eventually(t, "both hold it", func() bool {
		out, _ := m.fairlead("agent", "status")
		return strings.Contains(out, "fairlead run") && strings.Contains(out, "an editor")
	})
	interrupt(second)
	if !m.answers("one")() {
		t.Error("it ended with the terminal")
	}

	// The agent is killed: the editor has it started again, with what it ran.
	out, err := m.fairlead("agent", "status")
	if err != nil {
		t.Fatal(err, out)
	}
	pid, err := strconv.Atoi(rePID.FindStringSubmatch(out)[1])
	if err != nil {
		t.Fatal(err)
	}
	agent, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Kill(); err != nil {
		t.Fatal(err)
	}
	another := func(than int) func() bool {
		return func() bool {
			out, err := m.fairlead("agent", "status")
			return err == nil && !strings.Contains(out, "pid "+strconv.Itoa(than)+",") && strings.Contains(out, " live ") && m.answers("one")()
		}
	}
	eventually(t, "another agent runs it", another(pid))
	eventually(t, "the editor shows it again", func() bool { return strings.Contains(p.lenses(m), `"live`) })

	// Restarted on purpose: the same. What the lens says is the former agent's for a moment yet.
	if out, err = m.fairlead("agent", "status"); err != nil {
		t.Fatal(err, out)
	}
	if pid, err = strconv.Atoi(rePID.FindStringSubmatch(out)[1]); err != nil {
		t.Fatal(err)
	}
	restart := map[string]any{"command": "fairlead.restartAgent", "arguments": []any{}}
	if got := p.call("workspace/executeCommand", restart); got != "null" && got != "" {
		t.Errorf("restart: %s", got)
	}
	eventually(t, "run again after the restart", another(pid))
	eventually(t, "the editor shows it", func() bool { return strings.Contains(p.lenses(m), `"live`) })

	// The editor is killed and comes back, as a window that is reloaded: it is there still.
	p.cmd.Process.Kill()
	p = startPlain(t, m)
	eventually(t, "the next editor shows it", func() bool { return strings.Contains(p.lenses(m), `"live`) })
	if !m.answers("one")() {
		t.Error("it ended with the editor")
	}
	if got := p.call("workspace/executeCommand", map[string]any{"command": "fairlead.stop", "arguments": []any{}}); got != "null" && got != "" {
		t.Errorf("stop: %s", got)
	}
	eventually(t, "stopped", func() bool { return strings.Contains(p.lenses(m), "Run in environment") && !m.answers("one")() })
}
