package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"fairlead.dev/api"
)

// DebugSession is this client's debug session of a service; see Client.Debug.
type DebugSession struct {
	conn *websocket.Conn
	mu   sync.Mutex // of writing
}

// Debug begins a debug session of a service: builds get symbols, the process is started under the debugger. A service that
// another front end debugs is a Problem of api.CodeDebugHeld. The session lasts until Close, or until the agent is lost.
func (c *Client) Debug(ctx context.Context, name, onSave string) (*DebugSession, error) {
	conn, err := c.websocket(ctx, "/v1/services/"+url.PathEscape(name)+"/debug", url.Values{"client": {c.id}, "name": {c.opts.Name}, "on_save": {onSave}}, 1<<20)
	if err != nil {
		return nil, err
	}
	d := &DebugSession{conn: conn}
	conn.SetReadDeadline(time.Now().Add(pingLimit))
	conn.SetPingHandler(func(data string) error {
		conn.SetReadDeadline(time.Now().Add(pingLimit))
		d.mu.Lock()
		defer d.mu.Unlock()
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
	})
	return d, nil
}

// Next waits for what happens next. Its error ends the session: a Problem of api.CodeGone where the environment is gone,
// else the agent is lost.
func (d *DebugSession) Next() (api.DebugEvent, error) {
	var e api.DebugEvent
	_, b, err := d.conn.ReadMessage()
	if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return e, &api.Problem{Code: api.CodeGone, Message: "the environment is gone"}
	}
	if err != nil {
		return e, errors.New("the agent has ended")
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("understand the agent: %w", err)
	}
	return e, nil
}

// Do tells the agent what the debugger does.
func (d *DebugSession) Do(cmd api.DebugCommand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn.SetWriteDeadline(time.Now().Add(leaveLimit))
	return d.conn.WriteJSON(cmd)
}

// Close ends the session; the process goes on.
func (d *DebugSession) Close() error { return d.conn.Close() }

// DialDebug opens a DAP connection to the debugger of a generation's process, in a debug session of this client's.
func (c *Client) DialDebug(ctx context.Context, name string, g api.Generation) (net.Conn, api.DebugStart, error) {
	return c.dialDebug(ctx, name, url.Values{"client": {c.id}, "generation": {strconv.FormatUint(uint64(g), 10)}})
}

// DialTask opens a DAP connection to a debugger in which a test is to be launched; see DebugTest. Its end is the test's.
func (c *Client) DialTask(ctx context.Context, name, id string) (net.Conn, error) {
	conn, _, err := c.dialDebug(ctx, name, url.Values{"task": {id}})
	return conn, err
}

// DialCore opens a DAP connection to a debugger in which the core file is to be opened that a service has left in its
// environment (api.Service.Core), with the executable that DebugStart.Program names.
func (c *Client) DialCore(ctx context.Context, name, path string) (net.Conn, api.DebugStart, error) {
	return c.dialDebug(ctx, name, url.Values{"core": {path}})
}

func (c *Client) dialDebug(ctx context.Context, name string, q url.Values) (net.Conn, api.DebugStart, error) {
	var start api.DebugStart
	conn, resp, err := c.upgrade(ctx, "/v1/services/"+url.PathEscape(name)+"/debug/stream?"+q.Encode(), "fairlead-debug")
	if err != nil {
		return nil, start, err
	}
	if err := json.Unmarshal([]byte(resp.Header.Get(api.DebugHeader)), &start); err != nil {
		conn.Close()
		return nil, start, fmt.Errorf("understand the agent: %w", err)
	}
	return conn, start, nil
}

// DebugTest builds the tests of a folder and brings them beside a service, to be launched in the debugger of DialTask.
// The compiler's problems are its error.
func (c *Client) DebugTest(ctx context.Context, name, dir string) (api.TaskStarted, error) {
	var t api.TaskStarted
	err := c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/debug/test", api.DebugTest{Dir: dir}, &t)
	return t, err
}

// DebugChoice says what a save does while the process stands in the debugger, or lets in what waits.
func (c *Client) DebugChoice(ctx context.Context, name string, ch api.DebugChoice) error {
	return c.call(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/debug/choice", ch, nil)
}

// upgrade makes one connection of a request.
func (c *Client) upgrade(ctx context.Context, path, proto string) (net.Conn, *http.Response, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, c.unreached(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r, err := http.NewRequest(http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", proto)
	br := bufio.NewReader(conn)
	var resp *http.Response
	if err = r.Write(conn); err == nil {
		resp, err = http.ReadResponse(br, r)
	}
	if err != nil {
		conn.Close()
		return nil, nil, c.unreached(ctx, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		err := refusal(resp)
		conn.Close()
		return nil, nil, err
	}
	return &upgraded{conn, br}, resp, nil
}

// upgraded is a connection of which the first bytes may have been read with the answer's header.
type upgraded struct {
	net.Conn
	r *bufio.Reader
}

func (u *upgraded) Read(b []byte) (int, error) { return u.r.Read(b) }
