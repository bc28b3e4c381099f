using './containerapps.bicep'

param accountName = 'imaginglake'
param image = 'imagingregistry.azurecr.io/dicom-assets:0.1.0'
param registryName = 'imagingregistry'
param settings = loadTextContent('../dicom-assets.toml')
param jobConcurrency = 2
param maxReplicas = 4
param storageSku = 'Standard_ZRS'
param postgresPassword = readEnvironmentVariable('DICOM_ASSETS_POSTGRES_PASSWORD')
param dicomwebToken = readEnvironmentVariable('DICOM_ASSETS_TOKEN')
param auditKey = readEnvironmentVariable('DICOM_ASSETS_AUDIT_KEY')
