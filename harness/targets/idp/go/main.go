// A stand-in for the identity provider on Zitadel's own engine: listens on loopback alone, says where in one line of
// JSON, and ends with SIGTERM.
//
//	idp -state FOLDER [-port N] [-token-life SECONDS]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	folder := flag.String("state", "", "folder that keeps users and keys")
	port := flag.Int("port", 0, "0 takes a free one")
	life := flag.Int("token-life", 43200, "of access tokens, in seconds")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err := run(*folder, *port, time.Duration(*life)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "idp:", err)
		os.Exit(1)
	}
}

func run(folder string, port int, life time.Duration) error {
	known, err := openAccounts(folder)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	issuer := "http://" + listener.Addr().String()
	store := &storage{accounts: known, life: life, tokens: map[string]issued{}}
	handler, err := serve(issuer, store)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler}
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ending.Done()
		server.Close()
	}()
	told, err := json.Marshal(map[string]string{
		"issuer": issuer, "organization": organization, "project": project, "client": appID,
		"person": "fleet-operator", "admin_key_file": known.keyFile,
	})
	if err != nil {
		return err
	}
	fmt.Println(string(told))
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func serve(issuer string, store *storage) (http.Handler, error) {
	config := &op.Config{
		CryptoKey:   [32]byte(store.Crypto),
		CryptoKeyId: "1",
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: 5 * time.Minute, PollInterval: interval, UserFormPath: "/device", UserCode: op.UserCodeBase20,
		},
	}
	endpoints := *op.DefaultEndpoints
	endpoints.Token = op.NewEndpoint("oauth/v2/token")
	endpoints.JwksURI = op.NewEndpoint("oauth/v2/keys")
	endpoints.DeviceAuthorization = op.NewEndpoint("oauth/v2/device_authorization")
	provider, err := op.NewProvider(config, store, op.StaticIssuer(issuer),
		op.WithAllowInsecure(),
		op.WithCustomTokenEndpoint(endpoints.Token),
		op.WithCustomKeysEndpoint(endpoints.JwksURI),
		op.WithCustomDeviceAuthorizationEndpoint(endpoints.DeviceAuthorization),
	)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	(&facade{store, provider.Crypto()}).register(mux)
	engine := op.NewLegacyServer(provider, endpoints)
	mux.Handle("/", op.RegisterLegacyServer(engine, op.AuthorizeCallbackHandler(provider)))
	return mux, nil
}
