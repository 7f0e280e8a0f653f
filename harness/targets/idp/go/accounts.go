// The users of the stand-in, their keys and their grants, and the provider's own signing keys: kept in one file, so that
// a provider that is started again knows them.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type refusal struct {
	status int
	code   string
}

func (r refusal) Error() string { return r.code }

var (
	errMissing      = refusal{404, "not_found"}
	errTaken        = refusal{409, "already_exists"}
	errInvalid      = refusal{400, "invalid_argument"}
	errPrecondition = refusal{400, "failed_precondition"}
)

type userKey struct {
	Pem     string    `json:"pem"`
	Expires time.Time `json:"expires"`
}

type grant struct {
	ID    string   `json:"id"`
	Roles []string `json:"roles"`
}

type user struct {
	ID      string             `json:"id"`
	Name    string             `json:"name"`
	Machine bool               `json:"machine"`
	Active  bool               `json:"active"`
	Admin   bool               `json:"admin"`
	JWT     bool               `json:"jwt"`
	Keys    map[string]userKey `json:"keys"`
	Grants  map[string]*grant  `json:"grants"`
}

type signingKey struct {
	Kid string `json:"kid"`
	Der []byte `json:"der"`
}

type state struct {
	Last    int64            `json:"last"`
	Users   map[string]*user `json:"users"`
	Signing []signingKey     `json:"signing"`
	Active  string           `json:"active"`
	Person  string           `json:"person"`
	Crypto  []byte           `json:"crypto"`
}

type accounts struct {
	sync.Mutex
	state
	file, keyFile string
}

func openAccounts(folder string) (*accounts, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	a := &accounts{file: filepath.Join(folder, "state.json"), keyFile: filepath.Join(folder, "admin-key.json")}
	content, err := os.ReadFile(a.file)
	if err == nil {
		return a, json.Unmarshal(content, &a.state)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	a.Last, a.Users, a.Crypto = 310000000000000000, map[string]*user{}, make([]byte, 32)
	rand.Read(a.Crypto)
	person, _ := a.create("fleet-operator", false)
	a.Person = person.ID
	if err := a.makeAdministrator(); err != nil {
		return nil, err
	}
	a.Active, err = a.addSigningKey()
	if err != nil {
		return nil, err
	}
	return a, a.save()
}

func (a *accounts) save() error {
	content, err := json.Marshal(a.state)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(a.file+".new", a.file)
}

func (a *accounts) newID() string {
	a.Last++
	return strconv.FormatInt(a.Last, 10)
}

func (a *accounts) create(name string, machine bool) (*user, error) {
	if a.named(name) != nil {
		return nil, errTaken
	}
	made := &user{ID: a.newID(), Name: name, Machine: machine, Active: true, Keys: map[string]userKey{}, Grants: map[string]*grant{}}
	a.Users[made.ID] = made
	return made, nil
}

func (a *accounts) byName() []*user {
	return slices.SortedFunc(maps.Values(a.Users), func(one, other *user) int { return strings.Compare(one.Name, other.Name) })
}

func (a *accounts) named(name string) *user {
	for _, one := range a.Users {
		if one.Name == name {
			return one
		}
	}
	return nil
}

func (a *accounts) get(id string) (*user, error) {
	if found := a.Users[id]; found != nil {
		return found, nil
	}
	return nil, errMissing
}

func (a *accounts) addKey(id string, public []byte, expires time.Time) (string, error) {
	of, err := a.get(id)
	if err != nil {
		return "", err
	}
	if _, err := parsePublic(string(public)); err != nil {
		return "", errInvalid
	}
	number := a.newID()
	of.Keys[number] = userKey{string(public), expires}
	return number, nil
}

func (a *accounts) addSigningKey() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	kid := a.newID()
	a.Signing = append(a.Signing, signingKey{kid, x509.MarshalPKCS1PrivateKey(key)})
	return kid, nil
}

func (a *accounts) makeAdministrator() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	admin, _ := a.create("fleet-enrolment", true)
	admin.Admin = true
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	inPem := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	number, err := a.addKey(admin.ID, inPem, time.Now().AddDate(10, 0, 0))
	if err != nil {
		return err
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	content, err := json.Marshal(map[string]string{
		"type": "serviceaccount", "keyId": number, "key": string(private), "userId": admin.ID,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(a.keyFile, content, 0o600)
}

func parsePublic(text string) (*rsa.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errInvalid
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, errInvalid
	}
	return public, nil
}
