package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
)

var ordersDSN = regexp.MustCompile(`^([^:]*):([^@]*)@tcp\([^)]*\)/(.*)$`)

// mysql runs one statement and returns the first column of all rows. User, password and database are those of the DSN that
// the service has from staging; the address is not, so that other names can be tried.
func mysql(c net.Conn, sql string) (string, error) {
	dsn := ordersDSN.FindStringSubmatch(os.Getenv("ORDERS_DSN"))
	if dsn == nil {
		return "", errors.New("ORDERS_DSN is no DSN")
	}
	user, password, database := dsn[1], dsn[2], dsn[3]
	hello, err := readPacket(c)
	if err != nil {
		return "", err
	}
	// Version 10: protocol, version, connection, 8 bytes of salt, 1+2+1+2+2+1+10 of what is not needed, 12 bytes of salt.
	if len(hello) == 0 || hello[0] != 10 {
		return "", fmt.Errorf("a handshake that is not known here: %q", hello)
	}
	at := 1 + bytes.IndexByte(hello[1:], 0) + 1 + 4
	if len(hello) < at+8+19+12 {
		return "", fmt.Errorf("a short handshake: %q", hello)
	}
	salt := append(bytes.Clone(hello[at:at+8]), hello[at+8+19:at+8+19+12]...)
	const caps = 0x8 | 0x200 | 0x8000 | 0x80000 // a database, protocol 4.1, the salted password, the plugin's name
	login := binary.LittleEndian.AppendUint32(nil, caps)
	login = binary.LittleEndian.AppendUint32(login, 1<<24)
	login = append(append(login, 45), make([]byte, 23)...)
	login = append(append(login, user...), 0, sha1.Size)
	login = append(append(append(login, scramble(password, salt)...), database...), 0)
	login = append(login, "mysql_native_password\x00"...)
	if err := writePacket(c, 1, login); err != nil {
		return "", err
	}
	if _, err := answer(c); err != nil {
		return "", err
	}
	if err := writePacket(c, 0, append([]byte{3}, sql...)); err != nil {
		return "", err
	}
	head, err := answer(c)
	if err != nil || head[0] == 0 {
		return "", err
	}
	var out []string
	for ends := 0; ends < 2; { // the columns end with one, the rows with another
		p, err := answer(c)
		switch {
		case err != nil:
			return "", err
		case p[0] == 0xfe && len(p) < 9:
			ends++
		case ends == 1:
			if int(p[0]) >= len(p) || p[0] > 250 {
				return "", fmt.Errorf("a row that is not understood here: %q", p)
			}
			out = append(out, string(p[1:1+p[0]]))
		}
	}
	return strings.Join(out, ","), nil
}

// scramble is mysql_native_password.
func scramble(password string, salt []byte) []byte {
	once := sha1.Sum([]byte(password))
	twice := sha1.Sum(once[:])
	mixed := sha1.Sum(append(bytes.Clone(salt), twice[:]...))
	for i := range mixed {
		mixed[i] ^= once[i]
	}
	return mixed[:]
}

func readPacket(c net.Conn) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(c, b)
	return b, err
}

func writePacket(c net.Conn, seq byte, body []byte) error {
	n := len(body)
	_, err := c.Write(append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, body...))
	return err
}

// answer is a packet that is no error.
func answer(c net.Conn) ([]byte, error) {
	b, err := readPacket(c)
	if err == nil && (len(b) == 0 || b[0] == 0xff) {
		err = fmt.Errorf("%q", b)
	}
	return b, err
}
