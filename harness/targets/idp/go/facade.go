// The part of Zitadel's API that its engine has nothing of: users, keys, grants, signing keys, and the confirmation of
// device codes. Shapes from its documentation; no line of its code.
package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	organization = "300000000000000001"
	project      = "300000000000000002"
	appID        = "300000000000000003"
	jwtTokens    = "ACCESS_TOKEN_TYPE_JWT"
	ownAPI       = "urn:zitadel:iam:org:project:id:zitadel:aud"
	users        = "POST /zitadel.user.v2.UserService/"
)

type object = map[string]any

type body struct {
	OrganizationID  string          `json:"organizationId"`
	UserID          string          `json:"userId"`
	Username        string          `json:"username"`
	Machine         json.RawMessage `json:"machine"`
	AccessTokenType string          `json:"accessTokenType"`
	ExpirationDate  time.Time       `json:"expirationDate"`
	PublicKey       string          `json:"publicKey"`
	KeyID           string          `json:"keyId"`
	ProjectID       string          `json:"projectId"`
	RoleKeys        []string        `json:"roleKeys"`
	Deny            json.RawMessage `json:"deny"`
	Queries         []query         `json:"queries"`
	Filters         []query         `json:"filters"`
	Query           struct {
		Offset int `json:"offset,string"`
		Limit  int `json:"limit"`
	} `json:"query"`
}

// A hundred at most where nothing says how many, as the provider does.
func (b body) page(found []object) object {
	limit := b.Query.Limit
	if limit == 0 {
		limit = 100
	}
	first := min(b.Query.Offset, len(found))
	return object{"result": found[first:min(first+min(limit, 1000), len(found))]}
}

type query struct {
	UserName *struct {
		UserName string `json:"userName"`
	} `json:"userNameQuery"`
	Type *struct {
		Type string `json:"type"`
	} `json:"typeQuery"`
	User *struct {
		UserID string `json:"userId"`
	} `json:"userIdQuery"`
	Project *struct {
		ProjectID string `json:"projectId"`
	} `json:"projectIdQuery"`
	UserFilter *struct {
		ID string `json:"id"`
	} `json:"userIdFilter"`
}

type call func(*http.Request, body) (object, error)

type facade struct {
	*storage
	crypto op.Crypto
}

func (f *facade) authorize(r *http.Request) error {
	text, err := f.crypto.Decrypt(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if err != nil {
		return refusal{401, "unauthenticated"}
	}
	id, _, _ := strings.Cut(text, ":")
	held, ok := f.tokens[id]
	if !ok || time.Now().After(held.expires) || !slices.Contains(held.scopes, ownAPI) {
		return refusal{401, "unauthenticated"}
	}
	of := f.Users[held.user]
	if of == nil || !of.Active {
		return refusal{401, "unauthenticated"}
	}
	if !of.Admin {
		return refusal{403, "permission_denied"}
	}
	return nil
}

func (f *facade) register(mux *http.ServeMux) {
	for pattern, answer := range map[string]call{
		users + "CreateUser":                             f.create,
		users + "ListUsers":                              f.list,
		users + "GetUserByID":                            f.read,
		users + "AddKey":                                 f.newKey,
		users + "ListKeys":                               f.listKeys,
		users + "RemoveKey":                              f.removeKey,
		users + "DeactivateUser":                         func(_ *http.Request, b body) (object, error) { return f.turn(b.UserID, false) },
		users + "ReactivateUser":                         func(_ *http.Request, b body) (object, error) { return f.turn(b.UserID, true) },
		"PUT /management/v1/users/{user}/machine":        f.setTokens,
		"POST /management/v1/users/grants/_search":       f.listGrants,
		"POST /management/v1/users/{user}/grants":        f.grant,
		"PUT /management/v1/users/{user}/grants/{grant}": f.changeGrant,
		"GET /v2/oidc/device_authorization/{code}":       f.findCode,
		"POST /v2/oidc/device_authorization/{code}":      f.decide,
		"POST /standin/device_codes/{code}/expire":       f.expire,
		"POST /v2/web_keys":                              f.addWebKey,
		"POST /v2/web_keys/{key}/activate":               f.activate,
		"DELETE /v2/web_keys/{key}":                      f.deleteWebKey,
	} {
		mux.HandleFunc(pattern, f.answered(answer))
	}
}

func (f *facade) answered(answer call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.Lock()
		defer f.Unlock()
		told, err := f.authorized(r, answer)
		status := http.StatusOK
		if err != nil {
			refused, ok := err.(refusal)
			if !ok {
				refused = errInvalid
			}
			status, told = refused.status, object{"code": refused.code, "message": refused.code}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(told)
	}
}

func (f *facade) authorized(r *http.Request, answer call) (object, error) {
	if err := f.authorize(r); err != nil {
		return nil, err
	}
	var asked body
	if r.ContentLength != 0 {
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10)).Decode(&asked); err != nil {
			return nil, errInvalid
		}
	}
	told, err := answer(r, asked)
	if err != nil {
		return nil, err
	}
	return told, f.save()
}

// --- users ----------------------------------------------------------------------------------------

func shown(of *user) object {
	state := "USER_STATE_INACTIVE"
	if of.Active {
		state = "USER_STATE_ACTIVE"
	}
	told := object{"userId": of.ID, "username": of.Name, "state": state}
	if !of.Machine {
		told["human"] = object{}
		return told
	}
	machine := object{"name": of.Name}
	if of.JWT {
		machine["accessTokenType"] = jwtTokens
	}
	told["machine"] = machine
	return told
}

func (f *facade) create(_ *http.Request, b body) (object, error) {
	if b.OrganizationID != organization || b.Machine == nil {
		return nil, errInvalid
	}
	made, err := f.accounts.create(b.Username, true)
	if err != nil {
		return nil, err
	}
	return object{"id": made.ID}, nil
}

func (f *facade) list(_ *http.Request, b body) (object, error) {
	for _, one := range b.Queries {
		if one.Type != nil {
			found := []object{}
			for _, of := range f.byName() {
				if of.Machine == (one.Type.Type == "TYPE_MACHINE") {
					found = append(found, shown(of))
				}
			}
			return b.page(found), nil
		}
		if one.UserName != nil {
			if of := f.named(one.UserName.UserName); of != nil {
				return object{"result": []object{shown(of)}}, nil
			}
			return object{}, nil
		}
	}
	return nil, errInvalid
}

func (f *facade) read(_ *http.Request, b body) (object, error) {
	of, err := f.get(b.UserID)
	if err != nil {
		return nil, err
	}
	return object{"user": shown(of)}, nil
}

func (f *facade) newKey(_ *http.Request, b body) (object, error) {
	public, err := base64.StdEncoding.DecodeString(b.PublicKey)
	if err != nil || b.ExpirationDate.IsZero() {
		return nil, errInvalid
	}
	number, err := f.addKey(b.UserID, public, b.ExpirationDate)
	if err != nil {
		return nil, err
	}
	return object{"keyId": number}, nil
}

func (f *facade) listKeys(_ *http.Request, b body) (object, error) {
	for _, one := range b.Filters {
		if one.UserFilter != nil {
			keys := []object{}
			if of := f.Users[one.UserFilter.ID]; of != nil {
				for number := range of.Keys {
					keys = append(keys, object{"id": number})
				}
			}
			return object{"result": keys}, nil
		}
	}
	return nil, errInvalid
}

func (f *facade) removeKey(_ *http.Request, b body) (object, error) {
	of, err := f.get(b.UserID)
	if err != nil {
		return nil, err
	}
	delete(of.Keys, b.KeyID)
	return object{}, nil
}

func (f *facade) turn(id string, active bool) (object, error) {
	of, err := f.get(id)
	if err != nil {
		return nil, err
	}
	if of.Active == active {
		return nil, errPrecondition
	}
	of.Active = active
	return object{}, nil
}

func (f *facade) setTokens(r *http.Request, b body) (object, error) {
	of, err := f.get(r.PathValue("user"))
	if err != nil {
		return nil, err
	}
	wanted := b.AccessTokenType == jwtTokens
	if of.JWT == wanted {
		return nil, errPrecondition
	}
	of.JWT = wanted
	return object{}, nil
}

// --- grants ---------------------------------------------------------------------------------------

func (f *facade) grant(r *http.Request, b body) (object, error) {
	of, err := f.get(r.PathValue("user"))
	if err != nil {
		return nil, err
	}
	if of.Grants[b.ProjectID] != nil {
		return nil, errTaken
	}
	made := &grant{f.newID(), b.RoleKeys}
	of.Grants[b.ProjectID] = made
	return object{"userGrantId": made.ID}, nil
}

func (f *facade) listGrants(_ *http.Request, b body) (object, error) {
	var user, project string
	for _, one := range b.Queries {
		if one.User != nil {
			user = one.User.UserID
		}
		if one.Project != nil {
			project = one.Project.ProjectID
		}
	}
	found := []object{}
	for _, of := range f.byName() {
		held := of.Grants[project]
		if held != nil && (user == "" || user == of.ID) {
			found = append(found, object{"id": held.ID, "userId": of.ID, "projectId": project, "roleKeys": held.Roles})
		}
	}
	if len(found) == 0 {
		return object{}, nil
	}
	return b.page(found), nil
}

func (f *facade) changeGrant(r *http.Request, b body) (object, error) {
	of, err := f.get(r.PathValue("user"))
	if err != nil {
		return nil, err
	}
	for _, held := range of.Grants {
		if held.ID == r.PathValue("grant") {
			held.Roles = b.RoleKeys
			return object{}, nil
		}
	}
	return nil, errMissing
}

// --- device codes and signing keys ----------------------------------------------------------------

func (f *facade) findCode(r *http.Request, _ body) (object, error) {
	code, err := f.byUserCode(r.PathValue("code"))
	if err != nil {
		return nil, err
	}
	return object{"deviceAuthorizationRequest": object{"id": code.userCode, "clientId": code.ClientID}}, nil
}

func (f *facade) decide(r *http.Request, b body) (object, error) {
	code, err := f.byUserCode(r.PathValue("code"))
	if err != nil {
		return nil, err
	}
	if b.Deny != nil {
		code.Denied = true
		return object{}, nil
	}
	code.Done, code.Subject, code.AuthTime = true, f.Person, time.Now()
	return object{}, nil
}

func (f *facade) expire(r *http.Request, _ body) (object, error) {
	code, err := f.byUserCode(r.PathValue("code"))
	if err != nil {
		return nil, err
	}
	code.Expires = time.Now().Add(-time.Second)
	return object{}, nil
}

func (f *facade) addWebKey(*http.Request, body) (object, error) {
	kid, err := f.addSigningKey()
	return object{"id": kid}, err
}

func (f *facade) activate(r *http.Request, _ body) (object, error) {
	kid := r.PathValue("key")
	if !slices.ContainsFunc(f.Signing, func(one signingKey) bool { return one.Kid == kid }) {
		return nil, errPrecondition
	}
	f.Active = kid
	return object{}, nil
}

func (f *facade) deleteWebKey(r *http.Request, _ body) (object, error) {
	kid := r.PathValue("key")
	if kid == f.Active {
		return nil, errPrecondition
	}
	f.Signing = slices.DeleteFunc(f.Signing, func(one signingKey) bool { return one.Kid == kid })
	return object{}, nil
}
