// Go's net/http: tells each request that it got as a JSON line on standard output, and answers 200 `ok`.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

var lines sync.Mutex

func tell(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	lines.Lock()
	defer lines.Unlock()
	fmt.Println(string(text))
}

// latin1 keeps each byte as one character: JSON would replace what is not UTF-8.
func latin1(text string) string {
	runes := make([]rune, len(text))
	for at := 0; at < len(text); at++ {
		runes[at] = rune(text[at])
	}
	return string(runes)
}

func pairs(header http.Header) [][2]string {
	list := [][2]string{}
	for name, values := range header {
		for _, value := range values {
			list = append(list, [2]string{strings.ToLower(name), latin1(value)})
		}
	}
	return list
}

type all struct{}

func (all) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // It broke off: no request.
	}
	tell(map[string]any{
		"method":   r.Method,
		"target":   latin1(r.RequestURI),
		"fields":   append(pairs(r.Header), [2]string{"host", r.Host}),
		"body":     hex.EncodeToString(body),
		"trailers": pairs(r.Trailer),
	})
	w.Header().Set("Content-Length", "2")
	io.WriteString(w, "ok")
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tell(map[string]int{"ready": listener.Addr().(*net.TCPAddr).Port})
	server := http.Server{Handler: all{}, MaxHeaderBytes: 256 * 1024}
	fmt.Fprintln(os.Stderr, server.Serve(listener))
}
