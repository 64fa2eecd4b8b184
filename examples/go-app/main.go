// A page that says hello, on port 8080.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "<!doctype html><title>go-app</title><h1>Hello from Go</h1><p>%s</p>\n", host)
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}
