package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// backend sends one request to a dependency, by its name as a service would, and returns the answer in one line.
func backend(kind, address, request string) (string, error) {
	if kind == "http" {
		r, err := http.Post("http://"+address, "text/plain", strings.NewReader(request))
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return strings.TrimSpace(string(b)), err
	}
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	switch kind {
	case "redis":
		return redis(c, request)
	case "mysql":
		return mysql(c, request)
	}
	return postgres(c, request)
}

// redis sends an inline command.
func redis(c net.Conn, command string) (string, error) {
	if _, err := io.WriteString(c, command+"\r\n"); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") && !strings.HasPrefix(line, "$-1") {
		line, err = r.ReadString('\n')
	}
	return strings.TrimSpace(line), err
}

// postgres runs one statement by the simple protocol and returns the first column of all rows. User, password and database
// are those of libpq's environment, as a service has them from staging.
func postgres(c net.Conn, sql string) (string, error) {
	send := func(kind byte, body []byte) error {
		var b bytes.Buffer
		if kind != 0 {
			b.WriteByte(kind)
		}
		binary.Write(&b, binary.BigEndian, int32(len(body)+4))
		b.Write(body)
		_, err := c.Write(b.Bytes())
		return err
	}
	start := binary.BigEndian.AppendUint32(nil, 3<<16)
	start = append(start, "user\x00"+os.Getenv("PGUSER")+"\x00database\x00"+os.Getenv("PGDATABASE")+"\x00\x00"...)
	if err := send(0, start); err != nil {
		return "", err
	}
	var out []string
	asked := false
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return "", err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			return "", err
		}
		switch head[0] {
		case 'R':
			switch binary.BigEndian.Uint32(body) {
			case 0:
			case 3:
				if err := send('p', append([]byte(os.Getenv("PGPASSWORD")), 0)); err != nil {
					return "", err
				}
			default:
				return "", errors.New("an authentication that is not known here")
			}
		case 'E':
			return "", fmt.Errorf("%q", body)
		case 'D':
			if n := int32(binary.BigEndian.Uint32(body[2:])); n >= 0 {
				out = append(out, string(body[6:6+n]))
			}
		case 'Z':
			if asked {
				return strings.Join(out, ","), nil
			}
			asked = true
			if err := send('Q', append([]byte(sql), 0)); err != nil {
				return "", err
			}
		}
	}
}
