// What Zitadel's engine asks of its storage. Flows that the fleet does not use answer that they are not there.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"regexp"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	rolesScope = "urn:zitadel:iam:org:projects:roles"
	interval   = 5 * time.Second
)

var (
	audienceScope = regexp.MustCompile(`^urn:zitadel:iam:org:project:id:(.+):aud$`)
	errNotHere    = errors.New("the stand-in has no such flow")
)

type issued struct {
	user    string
	scopes  []string
	expires time.Time
}

type waiting struct {
	op.DeviceAuthorizationState
	deviceCode, userCode string
	polled               time.Time
	spent                bool
}

type storage struct {
	*accounts
	life   time.Duration
	tokens map[string]issued
	codes  []*waiting
}

func projects(scopes []string) []string {
	found := []string{}
	for _, scope := range scopes {
		if match := audienceScope.FindStringSubmatch(scope); match != nil {
			found = append(found, match[1])
		}
	}
	return found
}

// --- tokens ---------------------------------------------------------------------------------------

func (s *storage) CreateAccessToken(_ context.Context, request op.TokenRequest) (string, time.Time, error) {
	s.Lock()
	defer s.Unlock()
	expires := time.Now().Add(s.life)
	id := s.newID()
	s.tokens[id] = issued{request.GetSubject(), request.GetScopes(), expires}
	if assertion, ok := request.(*oidc.JWTTokenRequest); ok {
		assertion.Audience = projects(request.GetScopes())
	}
	return id, expires, nil
}

func (s *storage) JWTProfileTokenType(_ context.Context, request op.TokenRequest) (op.AccessTokenType, error) {
	s.Lock()
	defer s.Unlock()
	if of := s.Users[request.GetSubject()]; of != nil && of.JWT {
		return op.AccessTokenTypeJWT, nil
	}
	return op.AccessTokenTypeBearer, nil
}

func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, userID, _ string, scopes []string) (map[string]any, error) {
	s.Lock()
	defer s.Unlock()
	claims := map[string]any{}
	of := s.Users[userID]
	if of == nil || !slices.Contains(scopes, rolesScope) {
		return claims, nil
	}
	for _, project := range projects(scopes) {
		if held := of.Grants[project]; held != nil {
			roles := map[string]any{}
			for _, role := range held.Roles {
				roles[role] = map[string]string{"1": "fleet"}
			}
			claims["urn:zitadel:iam:org:project:"+project+":roles"] = roles
		}
	}
	return claims, nil
}

func (s *storage) GetKeyByIDAndClientID(_ context.Context, keyID, clientID string) (*jose.JSONWebKey, error) {
	s.Lock()
	defer s.Unlock()
	of := s.Users[clientID]
	if of == nil || !of.Active {
		return nil, errMissing
	}
	key, ok := of.Keys[keyID]
	if !ok || time.Now().After(key.Expires) {
		return nil, errMissing
	}
	public, err := parsePublic(key.Pem)
	if err != nil {
		return nil, err
	}
	return &jose.JSONWebKey{KeyID: keyID, Use: "sig", Key: public}, nil
}

func (s *storage) ValidateJWTProfileScopes(_ context.Context, _ string, scopes []string) ([]string, error) {
	return scopes, nil
}

// --- signing keys ---------------------------------------------------------------------------------

type publicKey struct {
	kid string
	key any
}

func (k publicKey) ID() string                                  { return k.kid }
func (k publicKey) Algorithm() jose.SignatureAlgorithm          { return jose.RS256 }
func (k publicKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                                 { return "sig" }
func (k publicKey) Key() any                                    { return k.key }

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) {
	s.Lock()
	defer s.Unlock()
	for _, one := range s.Signing {
		if one.Kid == s.Active {
			key, err := x509.ParsePKCS1PrivateKey(one.Der)
			return publicKey{one.Kid, key}, err
		}
	}
	return nil, errMissing
}

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	s.Lock()
	defer s.Unlock()
	keys := []op.Key{}
	for _, one := range s.Signing {
		key, err := x509.ParsePKCS1PrivateKey(one.Der)
		if err != nil {
			return nil, err
		}
		keys = append(keys, publicKey{one.Kid, &key.PublicKey})
	}
	return keys, nil
}

// --- device codes ---------------------------------------------------------------------------------

func (s *storage) StoreDeviceAuthorization(_ context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.Lock()
	defer s.Unlock()
	s.codes = append(s.codes, &waiting{
		DeviceAuthorizationState: op.DeviceAuthorizationState{ClientID: clientID, Scopes: scopes, Expires: expires},
		deviceCode:               deviceCode,
		userCode:                 userCode,
	})
	return nil
}

// The engine says slow_down when its storage takes too long; nothing in it looks at the interval. That is done here.
func (s *storage) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.Lock()
	defer s.Unlock()
	for _, code := range s.codes {
		if code.deviceCode != deviceCode || code.ClientID != clientID || code.spent {
			continue
		}
		undecided := !code.Done && !code.Denied && time.Now().Before(code.Expires)
		early := time.Since(code.polled) < interval
		code.polled = time.Now()
		if undecided && early {
			return nil, context.DeadlineExceeded
		}
		code.spent = code.Done
		return &code.DeviceAuthorizationState, nil
	}
	return nil, errMissing
}

func (s *storage) byUserCode(userCode string) (*waiting, error) {
	for _, code := range s.codes {
		if code.userCode == userCode {
			return code, nil
		}
	}
	return nil, errMissing
}

// --- clients --------------------------------------------------------------------------------------

type app struct{ op.Client }

func (app) GetID() string                                                { return appID }
func (app) RedirectURIs() []string                                       { return nil }
func (app) PostLogoutRedirectURIs() []string                             { return nil }
func (app) ApplicationType() op.ApplicationType                          { return op.ApplicationTypeNative }
func (app) AuthMethod() oidc.AuthMethod                                  { return oidc.AuthMethodNone }
func (app) ResponseTypes() []oidc.ResponseType                           { return nil }
func (app) GrantTypes() []oidc.GrantType                                 { return []oidc.GrantType{oidc.GrantTypeDeviceCode} }
func (app) LoginURL(id string) string                                    { return "/login?id=" + id }
func (app) AccessTokenType() op.AccessTokenType                          { return op.AccessTokenTypeJWT }
func (app) IDTokenLifetime() time.Duration                               { return time.Hour }
func (app) DevMode() bool                                                { return true }
func (app) RestrictAdditionalIdTokenScopes() func([]string) []string     { return keepAll }
func (app) RestrictAdditionalAccessTokenScopes() func([]string) []string { return keepAll }
func (app) IsScopeAllowed(string) bool                                   { return true }
func (app) IDTokenUserinfoClaimsAssertion() bool                         { return false }
func (app) ClockSkew() time.Duration                                     { return 0 }

func keepAll(scopes []string) []string { return scopes }

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != appID {
		return nil, errMissing
	}
	return app{}, nil
}

func (s *storage) AuthorizeClientIDSecret(context.Context, string, string) error { return errNotHere }

// --- not used by the fleet ------------------------------------------------------------------------

func (s *storage) Health(context.Context) error { return nil }
func (s *storage) CreateAuthRequest(context.Context, *oidc.AuthRequest, string) (op.AuthRequest, error) {
	return nil, errNotHere
}
func (s *storage) AuthRequestByID(context.Context, string) (op.AuthRequest, error) {
	return nil, errNotHere
}
func (s *storage) AuthRequestByCode(context.Context, string) (op.AuthRequest, error) {
	return nil, errNotHere
}
func (s *storage) SaveAuthCode(context.Context, string, string) error     { return errNotHere }
func (s *storage) DeleteAuthRequest(context.Context, string) error        { return errNotHere }
func (s *storage) TerminateSession(context.Context, string, string) error { return errNotHere }
func (s *storage) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errNotHere
}
func (s *storage) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, errNotHere
}
func (s *storage) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrServerError()
}
func (s *storage) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}
func (s *storage) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return errNotHere
}
func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNotHere
}
