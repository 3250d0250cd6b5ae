package outbound

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/wire"
)

// RFC 9113: section 6 has the frames, section 7 the error codes.
const (
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeader = 9

	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingTableSize = 0x1
	settingPush      = 0x2
	settingWindow    = 0x4

	noError = 0x0

	// smallestFrame is the frame size that every peer takes, and firstWindow the window that there is at first.
	smallestFrame = 16384
	firstWindow   = 65535
	firstTable    = 4096
	// maxTable bounds the table that either end may have us keep for its headers, maxBlock one block of them.
	maxTable = 64 << 10
	maxBlock = 1 << 20
	// greetLimit is how long a server may take to begin; grpc-go's client waits as long (minConnectTimeout).
	greetLimit = 20 * time.Second
	// wholeFrame is up to where a frame is read before it is written, so that one that comes slowly holds up nobody, and atHand
	// what is read at a time.
	wholeFrame = 64 << 10
	atHand     = 128 << 10
)

// connection forwards one HTTP/2 connection. A stream has the same number on both sides. One that is refused exists on the
// client's side only.
type connection struct {
	rt *route

	toClient, toServer half
	greeted            chan struct{} // closed when the client has the server's settings, before which it takes nothing else
	gone               chan struct{} // closed when the server's side has ended

	mu      sync.Mutex
	streams map[uint32]*stream // that the server knows and that have not ended
	window  int64              // what the client still takes on the connection
	initial int64              // and on a new stream
}

// half is one direction. Headers are decoded and encoded anew, since a block that is left out would leave both ends with other
// tables.
type half struct {
	mu    sync.Mutex // of what writes
	w     *bufio.Writer
	enc   *hpack.Encoder
	block bytes.Buffer // what enc writes to

	reads sync.Mutex // of dec
	dec   *hpack.Decoder
}

// stream is one call that was let through.
type stream struct {
	seen                  api.Seen
	clientEnded, srvEnded bool
	answer                answer
	told                  bool
}

type frame struct {
	length int
	kind   byte
	flags  byte
	stream uint32
}

// serveHTTP2 forwards until either side has ended.
func serveHTTP2(rt *route, client, server *wire.Conn) {
	c := &connection{rt: rt, greeted: make(chan struct{}), gone: make(chan struct{}), streams: map[uint32]*stream{}, window: firstWindow, initial: firstWindow}
	for h, w := range map[*half]io.Writer{&c.toClient: client, &c.toServer: server} {
		h.w = bufio.NewWriterSize(w, smallestFrame) // more is written from where it was read to
		h.enc = hpack.NewEncoder(&h.block)
		h.dec = hpack.NewDecoder(firstTable, nil)
		h.dec.SetMaxStringLength(maxBlock)
	}
	fromClient, fromServer := bufio.NewReaderSize(client.R, atHand), bufio.NewReaderSize(server.R, atHand)
	begin := make([]byte, len(preface))
	if _, err := io.ReadFull(fromClient, begin); err != nil || string(begin) != preface {
		return
	}
	c.toServer.w.Write(begin)
	go func() {
		defer close(c.gone)
		c.forward(fromServer, &c.toClient, c.fromServer)
		client.Close()
		server.Close()
	}()
	c.forward(fromClient, &c.toServer, c.fromClient)
	c.toServer.flush()
	server.Close()
	<-c.gone
}

// forward reads one side's frames until its end. What take does not handle goes on as it is, from where it was read to, together
// with what is at hand beside it.
func (c *connection) forward(from *bufio.Reader, to *half, take func(f *frame, payload []byte) (pass bool, err error)) error {
	var f frame
	run := 0 // how many of the bytes at hand go on as they are
	write := func() error {
		if run == 0 {
			return nil
		}
		b, err := from.Peek(run)
		if err == nil {
			err = to.write(b)
		}
		from.Discard(run)
		run = 0
		return err
	}
	for {
		b, _ := from.Peek(from.Buffered())
		known := f.parse(b[run:])
		if !known || frameHeader+f.length > len(b)-run { // what is whole may go, before more is waited for
			if err := write(); err != nil {
				return err
			}
			if err := to.flush(); err != nil {
				return err
			}
			var err error
			switch {
			case !known:
				_, err = from.Peek(frameHeader)
			case f.length <= wholeFrame:
				_, err = from.Peek(frameHeader + f.length)
			default:
				err = large(from, &f, to, take)
			}
			if err != nil {
				return err
			}
			continue
		}
		size := frameHeader + f.length
		payload := b[run+frameHeader : run+size]
		if f.kind == frameHeaders || f.kind == frameSettings { // take writes in its place
			if err := write(); err != nil {
				return err
			}
		}
		if f.kind == frameHeaders {
			from.Discard(size) // the payload is there until more is read
			size = 0
			if f.flags&flagEndHeaders == 0 {
				if err := to.flush(); err != nil {
					return err
				}
			}
			var err error
			if payload, err = collect(from, &f, payload); err != nil {
				return err
			}
		}
		pass, err := take(&f, payload)
		if err != nil {
			return err
		}
		if pass {
			run += size
			continue
		}
		if err := write(); err != nil {
			return err
		}
		from.Discard(size)
	}
}

// parse reads a frame's header, and says whether there is a whole one.
func (f *frame) parse(b []byte) bool {
	if len(b) < frameHeader {
		return false
	}
	f.length = int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	f.kind, f.flags, f.stream = b[3], b[4], binary.BigEndian.Uint32(b[5:])&(1<<31-1)
	return true
}

// large forwards a DATA frame that is not kept as a whole, as several: one that comes slowly would hold up the other streams. They
// have as many bytes together as the one had, padding included, since that is what both ends count (RFC 9113 section 6.9.1).
func large(from *bufio.Reader, f *frame, to *half, take func(f *frame, payload []byte) (pass bool, err error)) error {
	if f.kind != frameData {
		return fmt.Errorf("a frame of kind %d has %d bytes", f.kind, f.length)
	}
	pass, err := take(f, nil)
	if err != nil {
		return err
	}
	from.Discard(frameHeader)
	if !pass {
		_, err := from.Discard(f.length)
		return err
	}
	left, pad := f.length, []byte(nil) // pad has its length before it, and the last frame has both
	if f.flags&flagPadded != 0 {
		n, err := from.ReadByte()
		if err != nil {
			return err
		}
		pad = make([]byte, 1+int(n))
		pad[0] = n
		left -= len(pad)
	}
	for left > smallestFrame-len(pad) {
		if _, err := from.Peek(1); err != nil {
			return err
		}
		b, _ := from.Peek(min(from.Buffered(), left, smallestFrame))
		if err := to.frame(frameData, f.flags&^(flagEndStream|flagPadded), f.stream, b); err != nil {
			return err
		}
		left -= len(b)
		from.Discard(len(b))
		if from.Buffered() == 0 {
			if err := to.flush(); err != nil {
				return err
			}
		}
	}
	last := make([]byte, 0, smallestFrame)
	if pad != nil {
		last = append(last, pad[0])
	}
	last = last[:len(last)+left]
	if _, err := io.ReadFull(from, last[len(last)-left:]); err != nil {
		return err
	}
	if pad != nil {
		if _, err := io.ReadFull(from, pad[1:]); err != nil {
			return err
		}
		last = append(last, pad[1:]...)
	}
	return to.frame(frameData, f.flags, f.stream, last)
}

// collect takes padding and priority off a HEADERS frame's payload, and adds what its CONTINUATION frames have.
func collect(r *bufio.Reader, f *frame, payload []byte) ([]byte, error) {
	pad := 0
	if f.flags&flagPadded != 0 {
		if len(payload) < 1 {
			return nil, errors.New("a padded frame has no padding")
		}
		pad, payload = int(payload[0]), payload[1:]
	}
	if f.flags&flagPriority != 0 { // RFC 9113 section 5.3.2: it may be ignored
		if len(payload) < 5 {
			return nil, errors.New("a frame with a priority has none")
		}
		payload = payload[5:]
	}
	if pad > len(payload) {
		return nil, errors.New("a frame has more padding than bytes")
	}
	payload = payload[:len(payload)-pad]
	if f.flags&flagEndHeaders == 0 {
		payload = slices.Clone(payload) // it is where r reads to
	}
	for f.flags&flagEndHeaders == 0 {
		var h [frameHeader]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return nil, err
		}
		n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		if h[3] != frameContinuation || binary.BigEndian.Uint32(h[5:])&(1<<31-1) != f.stream || len(payload)+n > maxBlock {
			return nil, errors.New("headers are not continued, or too long")
		}
		payload = append(payload, make([]byte, n)...)
		if _, err := io.ReadFull(r, payload[len(payload)-n:]); err != nil {
			return nil, err
		}
		f.flags |= h[4] & flagEndHeaders
	}
	return payload, nil
}

// fromClient looks at a frame of the service.
func (c *connection) fromClient(f *frame, payload []byte) (pass bool, err error) {
	switch f.kind {
	case frameSettings:
		return true, c.clientSettings(f, payload)
	case frameWindowUpdate:
		if f.stream == 0 && len(payload) == 4 {
			c.mu.Lock()
			c.window += int64(binary.BigEndian.Uint32(payload) & (1<<31 - 1))
			c.mu.Unlock()
			return true, nil
		}
	case frameHeaders:
		return false, c.request(f, payload)
	case framePushPromise:
		return false, errors.New("a client pushes")
	}
	if f.stream == 0 {
		return true, nil
	}
	c.mu.Lock()
	st := c.streams[f.stream]
	if st != nil && (f.kind == frameReset || f.kind == frameData && f.flags&flagEndStream != 0) {
		st.clientEnded = true
		c.endedLocked(f.stream, st, f.kind == frameReset)
	}
	c.mu.Unlock()
	if st == nil && f.kind == frameData && f.length > 0 {
		// Of a call that was refused, or is over: the server never gets it, and so never gives the window back.
		return false, c.credit(f.length)
	}
	return st != nil, nil
}

// fromServer looks at a frame of the dependency.
func (c *connection) fromServer(f *frame, payload []byte) (pass bool, err error) {
	select {
	case <-c.greeted:
	default:
		if f.kind != frameSettings || f.flags&flagAck != 0 {
			return false, errors.New("a server does not begin with its settings") // RFC 9113 section 3.4
		}
		defer close(c.greeted)
	}
	switch f.kind {
	case frameSettings:
		if f.flags&flagAck != 0 {
			return true, nil
		}
		err := settings(payload, func(id uint16, v uint32) uint32 {
			if id != settingTableSize {
				return v
			}
			v = min(v, maxTable)
			c.toServer.mu.Lock()
			c.toServer.enc.SetMaxDynamicTableSizeLimit(v)
			c.toServer.mu.Unlock()
			c.toServer.allow(v)
			return v
		})
		if err == nil {
			err = c.toClient.frame(f.kind, f.flags, f.stream, payload)
		}
		return false, err
	case frameHeaders:
		return false, c.response(f, payload)
	case framePushPromise:
		return false, errors.New("pushes were not allowed") // by clientSettings
	case frameData, frameReset:
		c.mu.Lock()
		if f.kind == frameData {
			c.window -= int64(f.length)
		}
		if st := c.streams[f.stream]; st != nil && (f.kind == frameReset || f.flags&flagEndStream != 0) {
			st.srvEnded = true
			c.endedLocked(f.stream, st, f.kind == frameReset)
		}
		c.mu.Unlock()
	}
	return true, nil
}

// endedLocked forgets a stream that has ended on both sides.
func (c *connection) endedLocked(id uint32, st *stream, reset bool) {
	by := ""
	if st.srvEnded && !st.answer.judged {
		st.answer.judged = true
		by = st.answer.refusedBy(st.seen.Callee)
	}
	if by != "" {
		st.seen.Verdict, st.seen.By = api.CallRefused, by
	}
	if by != "" || !st.told && (st.srvEnded || reset) {
		st.told = true
		c.rt.gate.note(st.seen)
	}
	if reset || st.clientEnded && st.srvEnded {
		delete(c.streams, id)
	}
}

// settings gives each setting to change.
func settings(payload []byte, change func(id uint16, v uint32) uint32) error {
	if len(payload)%6 != 0 {
		return errors.New("settings are cut off")
	}
	for ; len(payload) > 0; payload = payload[6:] {
		id, v := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])
		binary.BigEndian.PutUint32(payload[2:], change(id, v))
	}
	return nil
}

// clientSettings keeps what the client allows. It allows no pushes, since their headers would be one more table.
func (c *connection) clientSettings(f *frame, payload []byte) error {
	if f.flags&flagAck != 0 {
		return nil
	}
	return settings(payload, func(id uint16, v uint32) uint32 {
		switch id {
		case settingPush:
			return 0
		case settingWindow:
			c.mu.Lock()
			c.initial = int64(v)
			c.mu.Unlock()
		case settingTableSize:
			v = min(v, maxTable)
			c.toClient.mu.Lock()
			c.toClient.enc.SetMaxDynamicTableSizeLimit(v)
			c.toClient.mu.Unlock()
			c.toClient.allow(v)
		}
		return v
	})
}

// request takes the headers of a stream, or the trailers of its client.
func (c *connection) request(f *frame, block []byte) error {
	fields, err := c.toServer.decode(block)
	if err != nil {
		return err
	}
	end := f.flags&flagEndStream != 0
	c.mu.Lock()
	st := c.streams[f.stream]
	if st != nil && end {
		st.clientEnded = true
		c.endedLocked(f.stream, st, false)
	}
	c.mu.Unlock()
	if st == nil {
		var method, path, kind string
		for _, h := range fields {
			switch h.Name {
			case ":method":
				method = h.Value
			case ":path":
				path = h.Value
			case "content-type":
				kind = h.Value
			}
		}
		if method == "" {
			return nil // trailers of a call that was refused
		}
		rule := c.rt.rule.Load()
		call := identify(rule.Callee, method, path, kind)
		v := rule.judge(call.Method)
		if v == api.CallDenied {
			c.rt.gate.note(api.Seen{Call: call, Verdict: v})
			return c.deny(f.stream, denial{rule, call}, end)
		}
		c.mu.Lock()
		c.streams[f.stream] = &stream{seen: api.Seen{Call: call, Verdict: v}, clientEnded: end}
		c.mu.Unlock()
	}
	return c.toServer.headers(f.stream, fields, end)
}

// response takes the headers of an answer, or its trailers.
func (c *connection) response(f *frame, block []byte) error {
	fields, err := c.toClient.decode(block)
	if err != nil {
		return err
	}
	end := f.flags&flagEndStream != 0
	c.mu.Lock()
	if st := c.streams[f.stream]; st != nil {
		for _, h := range fields {
			switch h.Name {
			case ":status":
				st.answer.status = h.Value
			case "grpc-status":
				st.answer.grpcStatus = h.Value
			case "grpc-message":
				st.answer.grpcMessage = h.Value
			case "server":
				st.answer.server = h.Value
			case "l5d-proxy-error":
				st.answer.linkerd = h.Value
			case "content-length":
				st.answer.length = h.Value
			}
		}
		switch {
		case end:
			st.srvEnded = true
			c.endedLocked(f.stream, st, false)
		case !st.told && st.answer.refusedBy("") == "" && st.answer.status != "403": // a stream may go on for long
			st.told = true
			c.rt.gate.note(st.seen)
		}
	}
	c.mu.Unlock()
	return c.toClient.headers(f.stream, fields, end)
}

// deny answers a call in the dependency's place. ended: the client has said all of it.
func (c *connection) deny(id uint32, d denial, ended bool) error {
	if err := c.toServer.flush(); err != nil { // it may wait for the client's beginning
		return err
	}
	limit := time.NewTimer(greetLimit)
	defer limit.Stop()
	select {
	case <-c.greeted:
	case <-c.gone:
		return errors.New("the server has ended")
	case <-limit.C:
		return errors.New("the server does not begin")
	}
	var err error
	if d.call.Protocol == api.CallGRPC {
		msg, details := d.grpcStatus()
		err = c.toClient.headers(id, []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-status", Value: strconv.Itoa(permissionDenied)}, {Name: "grpc-message", Value: msg}, {Name: "grpc-status-details-bin", Value: details}}, true)
	} else {
		body := d.problem()
		c.mu.Lock()
		// What the client takes is counted by the dependency too, which does not know of this: it may have used all of it.
		fits := int64(len(body)) <= min(c.window, c.initial)
		if fits {
			c.window -= int64(len(body))
		}
		c.mu.Unlock()
		fields := []hpack.HeaderField{{Name: ":status", Value: "403"}, {Name: "content-type", Value: "application/problem+json"}}
		if fits {
			fields = append(fields, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))})
		}
		if err = c.toClient.headers(id, fields, !fits); err == nil && fits {
			err = c.toClient.frame(frameData, flagEndStream, id, body)
		}
	}
	if err == nil && !ended { // RFC 9113 section 8.1: the rest of the request is not wanted, and the answer stands
		err = c.toClient.frame(frameReset, 0, id, binary.BigEndian.AppendUint32(nil, noError))
	}
	if err != nil {
		return err
	}
	return c.toClient.flush()
}

// credit gives the client back what it sent to nobody.
func (c *connection) credit(n int) error {
	if err := c.toClient.frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
		return err
	}
	return c.toClient.flush()
}

func (h *half) write(b []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(b)
	return err
}

func (h *half) flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.w.Flush()
}

// allow lets the peer's encoder use a table of this size.
func (h *half) allow(v uint32) {
	h.reads.Lock()
	defer h.reads.Unlock()
	h.dec.SetAllowedMaxDynamicTableSize(max(v, firstTable))
}

func (h *half) decode(block []byte) ([]hpack.HeaderField, error) {
	h.reads.Lock()
	defer h.reads.Unlock()
	fields, err := h.dec.DecodeFull(block)
	if err != nil {
		return nil, fmt.Errorf("decode headers: %w", err)
	}
	return fields, nil
}

// frame writes one frame.
func (h *half) frame(kind, flags byte, stream uint32, payload []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.frameLocked(kind, flags, stream, payload)
}

func (h *half) frameLocked(kind, flags byte, stream uint32, payload []byte) error {
	n := len(payload)
	head := [frameHeader]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	binary.BigEndian.PutUint32(head[5:], stream)
	h.w.Write(head[:])
	_, err := h.w.Write(payload)
	return err
}

// headers writes a block, in as many frames as every peer takes.
func (h *half) headers(stream uint32, fields []hpack.HeaderField, end bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.block.Reset()
	for _, f := range fields {
		if err := h.enc.WriteField(f); err != nil {
			return fmt.Errorf("encode headers: %w", err)
		}
	}
	kind, flags := byte(frameHeaders), byte(0)
	if end {
		flags = flagEndStream
	}
	for b := h.block.Bytes(); ; {
		n := min(len(b), smallestFrame)
		if n == len(b) {
			return h.frameLocked(kind, flags|flagEndHeaders, stream, b)
		}
		if err := h.frameLocked(kind, flags, stream, b[:n]); err != nil {
			return err
		}
		b, kind, flags = b[n:], frameContinuation, 0
	}
}
