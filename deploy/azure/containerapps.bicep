// dicom-assets on Azure Container Apps: storage and its rights (main.bicep), an identity, PostgreSQL, an environment with
// logs, one app that holds Dagster (code location, daemon, webserver) and one that answers DICOMweb.
//   az deployment group create -g GROUP -f deploy/azure/containerapps.bicep -p deploy/azure/containerapps.bicepparam

@description('Beginning of the names of what is made: lower-case letters and digits.')
@minLength(3)
@maxLength(16)
param name string = 'dicomassets'

@description('Name of the storage account: 3 to 24 lower-case letters and digits, unique in the world.')
@minLength(3)
@maxLength(24)
param accountName string

@description('How many copies the account keeps, and where.')
param storageSku string = 'Standard_ZRS'

@description('Image that deploy/Dockerfile builds, with its tag or digest.')
param image string

@description('Name of the container registry of this resource group that holds the image; empty where it can be pulled by anybody.')
param registryName string = ''

@description('Text of dicom-assets.toml.')
param settings string

@description('Batches at a time. Each needs a core and 2 GiB for each reading process, and 2 GiB more.')
@minValue(1)
@maxValue(32)
param jobConcurrency int = 2

@description('Largest number of replicas that answer DICOMweb. Dagster has one: it is the daemon that must not run twice.')
@minValue(1)
@maxValue(100)
param maxReplicas int = 4

@description('Cores of the container that runs batches. The profile Consumption has 4 for all containers of an app.')
param batchCores string = '3'

@description('Memory of the container that runs batches; on Consumption 2 GiB for each core.')
param batchMemory string = '6Gi'

@description('Type of a dedicated workload profile for larger batches, such as E8; empty for Consumption.')
param workloadProfileType string = ''

@description('Subnet of the environment, /27 at least; empty for a network of its own. Zones need one.')
param subnetId string = ''

@description('Whether DICOMweb can be reached from outside the environment. Tokens are needed all the same.')
param dicomwebExternal bool = false

@description('Client id of an app registration that signs people in to Dagster; empty: Dagster is reached from inside alone.')
param signInClientId string = ''

@description('Secret of that app registration.')
@secure()
param signInClientSecret string = ''

@description('Password of PostgreSQL, which this makes.')
@secure()
@minLength(16)
param postgresPassword string

@description('The token that DICOMweb asks for: 32 characters or more, made at random.')
@secure()
@minLength(32)
param dicomwebToken string

@description('Key of the digests in the audit log: who keeps it can answer who saw a patient.')
@secure()
@minLength(32)
param auditKey string

@description('Where everything is made.')
param location string = resourceGroup().location

var postgresUser = 'dagster'
var profile = empty(workloadProfileType) ? 'Consumption' : 'batches'
var signsIn = !empty(signInClientId)
var pulls = !empty(registryName)
var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-identity'
  location: location
}

module storage 'main.bicep' = {
  name: '${name}-storage'
  params: {
    accountName: accountName
    principalId: identity.properties.principalId
    location: location
    storageSku: storageSku
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = if (pulls) {
  name: pulls ? registryName : 'none00'
}

resource mayPull 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (pulls) {
  scope: registry
  name: guid(resourceGroup().id, registryName, identity.id, acrPull)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', acrPull)
  }
}

resource postgres 'Microsoft.DBforPostgreSQL/flexibleServers@2024-08-01' = {
  name: '${name}-postgres'
  location: location
  sku: {
    name: 'Standard_B2s'
    tier: 'Burstable'
  }
  properties: {
    version: '16'
    administratorLogin: postgresUser
    administratorLoginPassword: postgresPassword
    storage: {
      storageSizeGB: 32
    }
    backup: {
      backupRetentionDays: 14
      geoRedundantBackup: 'Disabled'
    }
  }
}

resource database 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2024-08-01' = {
  parent: postgres
  name: 'dagster'
}

// Addresses 0.0.0.0 stand for services of Azure. Who has a subnet gives the server a private endpoint instead.
resource azureMayConnect 'Microsoft.DBforPostgreSQL/flexibleServers/firewallRules@2024-08-01' = {
  parent: postgres
  name: 'azure'
  properties: {
    startIpAddress: '0.0.0.0'
    endIpAddress: '0.0.0.0'
  }
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: '${name}-logs'
  location: location
  properties: {
    retentionInDays: 90
    sku: {
      name: 'PerGB2018'
    }
  }
}

resource environment 'Microsoft.App/managedEnvironments@2025-01-01' = {
  name: '${name}-environment'
  location: location
  properties: {
    zoneRedundant: !empty(subnetId)
    vnetConfiguration: empty(subnetId)
      ? null
      : {
          infrastructureSubnetId: subnetId
          internal: false
        }
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
    workloadProfiles: concat(
      [
        {
          name: 'Consumption'
          workloadProfileType: 'Consumption'
        }
      ],
      empty(workloadProfileType)
        ? []
        : [
            {
              name: 'batches'
              workloadProfileType: workloadProfileType
              minimumCount: 1
              maximumCount: 1
            }
          ]
    )
  }
}

var registries = pulls
  ? [
      {
        server: '${registryName}.azurecr.io'
        identity: identity.id
      }
    ]
  : []

var settingsVolume = {
  name: 'settings'
  storageType: 'Secret'
  secrets: [
    {
      secretRef: 'settings'
      path: 'dicom-assets.toml'
    }
  ]
}

var settingsMount = {
  volumeName: 'settings'
  mountPath: '/etc/dicom-assets'
}

var dagsterVariables = [
  { name: 'AZURE_CLIENT_ID', value: identity.properties.clientId }
  { name: 'DAGSTER_PG_HOST', value: postgres.properties.fullyQualifiedDomainName }
  { name: 'DAGSTER_PG_DB', value: database.name }
  { name: 'DAGSTER_PG_USERNAME', value: postgresUser }
  { name: 'DAGSTER_PG_PASSWORD', secretRef: 'postgres-password' }
  { name: 'PGSSLMODE', value: 'require' }
  { name: 'DICOM_ASSETS_LOG_ACCOUNT', value: accountName }
  { name: 'DICOM_ASSETS_LOG_CONTAINER', value: 'logs' }
]

// The three containers speak to each other on localhost, where the image's workspace.yaml looks for `code`.
var toLocalhost = 'sed -i "s/host: code/host: localhost/" workspace.yaml'
// How many batches run at a time stands in dagster.yaml, as a number: Dagster takes no variable there.
var toConcurrency = 'sed -i "s/max_concurrent_runs: .*/max_concurrent_runs: ${jobConcurrency}/" dagster.yaml'

resource dagster 'Microsoft.App/containerApps@2025-01-01' = {
  name: '${name}-dagster'
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  dependsOn: [
    storage
    mayPull
    azureMayConnect
  ]
  properties: {
    environmentId: environment.id
    workloadProfileName: profile
    configuration: {
      activeRevisionsMode: 'Single'
      registries: registries
      secrets: concat(
        [
          { name: 'postgres-password', value: postgresPassword }
          { name: 'settings', value: settings }
        ],
        signsIn ? [{ name: 'sign-in-secret', value: signInClientSecret }] : []
      )
      ingress: {
        // Dagster signs nobody in: from outside only behind the sign-in below.
        external: signsIn
        targetPort: 3000
        transport: 'http'
        allowInsecure: false
      }
    }
    template: {
      // A batch that is cut off is run again; this long it may go on.
      terminationGracePeriodSeconds: 600
      scale: {
        minReplicas: 1
        maxReplicas: 1
      }
      volumes: [
        settingsVolume
      ]
      containers: [
        {
          name: 'code'
          image: image
          env: dagsterVariables
          resources: {
            cpu: json(batchCores)
            memory: batchMemory
          }
          volumeMounts: [
            settingsMount
          ]
        }
        {
          name: 'daemon'
          image: image
          command: ['sh', '-c']
          args: ['${toLocalhost} && ${toConcurrency} && exec dagster-daemon run --workspace workspace.yaml']
          env: dagsterVariables
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          volumeMounts: [
            settingsMount
          ]
        }
        {
          name: 'webserver'
          image: image
          command: ['sh', '-c']
          args: [
            '${toLocalhost} && ${toConcurrency} && exec dagster-webserver --host 0.0.0.0 --port 3000 --workspace workspace.yaml'
          ]
          env: dagsterVariables
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          volumeMounts: [
            settingsMount
          ]
        }
      ]
    }
  }
}

resource signIn 'Microsoft.App/containerApps/authConfigs@2025-01-01' = if (signsIn) {
  parent: dagster
  name: 'current'
  properties: {
    platform: {
      enabled: true
    }
    globalValidation: {
      unauthenticatedClientAction: 'RedirectToLoginPage'
      redirectToProvider: 'azureactivedirectory'
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          clientId: signInClientId
          clientSecretSettingName: 'sign-in-secret'
          openIdIssuer: '${az.environment().authentication.loginEndpoint}${subscription().tenantId}/v2.0'
        }
      }
    }
  }
}

resource dicomweb 'Microsoft.App/containerApps@2025-01-01' = {
  name: '${name}-dicomweb'
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  dependsOn: [
    storage
    mayPull
  ]
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      registries: registries
      secrets: [
        { name: 'settings', value: settings }
        { name: 'token', value: dicomwebToken }
        { name: 'audit-key', value: auditKey }
      ]
      ingress: {
        external: dicomwebExternal
        targetPort: 8050
        transport: 'http'
        allowInsecure: false
      }
    }
    template: {
      scale: {
        minReplicas: 1
        maxReplicas: maxReplicas
        rules: [
          {
            name: 'requests'
            http: {
              metadata: {
                concurrentRequests: '20'
              }
            }
          }
        ]
      }
      volumes: [
        settingsVolume
      ]
      containers: [
        {
          name: 'dicomweb'
          image: image
          command: ['dicom-assets', 'serve', '--host', '0.0.0.0', '--port', '8050']
          env: [
            { name: 'AZURE_CLIENT_ID', value: identity.properties.clientId }
            { name: 'DICOM_ASSETS_TOKEN', secretRef: 'token' }
            { name: 'DICOM_ASSETS_AUDIT_KEY', secretRef: 'audit-key' }
          ]
          resources: {
            cpu: json('1')
            memory: '2Gi'
          }
          probes: [
            {
              type: 'Readiness'
              httpGet: {
                path: '/healthz'
                port: 8050
              }
              periodSeconds: 15
              failureThreshold: 4
            }
          ]
          volumeMounts: [
            settingsMount
          ]
        }
      ]
    }
  }
}

output landing string = storage.outputs.landing
output lake string = storage.outputs.lake
output dagsterHost string = dagster.properties.configuration.ingress.fqdn
output dicomwebHost string = dicomweb.properties.configuration.ingress.fqdn
output principalId string = identity.properties.principalId
